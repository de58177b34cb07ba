"""Between the numbers of an enum on the wire and its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from libs.common.errors import InvalidArgumentError

_Enum = TypeVar("_Enum")


def choose(number: int, known: Mapping[_Enum, int], default: _Enum | None, field: str) -> _Enum:
    """Return the value of an enum's number; 0 is the default, where there is one.

    Raises:
        InvalidArgumentError: UNKNOWN_ENUM_VALUE on the field.
    """
    if number == 0 and default is not None:
        return default
    for value, its_number in known.items():
        if its_number == number:
            return value
    raise InvalidArgumentError.of(field, "UNKNOWN_ENUM_VALUE", f"{number} is not a known value")
