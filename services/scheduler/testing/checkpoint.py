"""Where a simulation takes hold of the in-memory stores: before and after each operation, and nowhere inside one.

A checkpoint that awaits lets other coroutines run there; one that raises is the process dying there, with the operation
not done (`.before`) or done and its answer lost (`.after`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any, TypeVar

from libs.common.instants import truncate_to_millis

Checkpoint = Callable[[str], Awaitable[None]]
_T = TypeVar("_T", bound=Any)


async def no_checkpoint(_name: str) -> None:
    """Go on at once."""


class operation:  # noqa: N801 - used as a function
    """Surround one atomic operation with its two checkpoints, `<name>.before` and `<name>.after`."""

    __slots__ = ("_checkpoint", "_name")

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name

    async def __aenter__(self) -> None:
        await self._checkpoint(f"{self._name}.before")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An operation that failed is over without an answer that could be lost.
        if kind is None:
            await self._checkpoint(f"{self._name}.after")


def as_stored(value: _T) -> _T:
    """Return a value with its instants cut to what the database keeps, so that both stores compare alike."""
    kind: Any = type(value)
    changes = {
        name: truncate_to_millis(instant)
        for name in _instants_of(kind)
        if (instant := getattr(value, name)) is not None and instant.microsecond % 1000
    }
    return replace(value, **changes) if changes else value


@cache
def _instants_of(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields that hold instants, by their annotations, which are texts."""
    return tuple(field.name for field in fields(kind) if datetime.__name__ in str(field.type))
