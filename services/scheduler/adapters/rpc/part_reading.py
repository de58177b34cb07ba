"""Reads a message part by part, so that callers hear of everything that cannot be read, and not of the first only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from libs.common.errors import FieldViolation, InvalidArgumentError

_Value = TypeVar("_Value")


class Problems(list[FieldViolation]):
    """What could not be read so far."""

    def read(self, part: Callable[[], _Value], fallback: _Value) -> _Value:
        """Return a part, or note why it cannot be read and return what stands in for it."""
        try:
            return part()
        except InvalidArgumentError as error:
            self.extend(error.violations)
            return fallback


def refuse(violations: Iterable[FieldViolation]) -> None:
    """Raise InvalidArgumentError if anything is wrong.

    What is too many is refused so before it is read: a message has room for millions of empty items.
    """
    if found := list(violations):
        raise InvalidArgumentError(found)
