"""Where a simulation takes hold of the in-memory stores: before and after each operation, and nowhere inside one.

A checkpoint that awaits lets other coroutines run there; one that raises is the process dying there, with the operation
not done (`.before`) or done and its answer lost (`.after`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, TypeVar

from libs.common.instants import truncate_to_millis

Checkpoint = Callable[[str], Awaitable[None]]
_T = TypeVar("_T", bound=Any)


async def no_checkpoint(_name: str) -> None:
    """Go on at once."""


@asynccontextmanager
async def operation(checkpoint: Checkpoint, name: str) -> AsyncIterator[None]:
    """Surround one atomic operation with its two checkpoints, `<name>.before` and `<name>.after`."""
    await checkpoint(f"{name}.before")
    yield
    await checkpoint(f"{name}.after")


def as_stored(value: _T) -> _T:
    """Return a value with its instants cut to what the database keeps, so that both stores compare alike."""
    changes = {
        field.name: truncate_to_millis(instant)
        for field in fields(value)
        if isinstance(instant := getattr(value, field.name), datetime)
    }
    return replace(value, **changes) if changes else value
