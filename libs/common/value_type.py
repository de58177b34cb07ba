"""Marks the values of the hot path: frozen for the type checker, and plain at run time.

A frozen dataclass sets each of its fields through a check that forbids setting it, which makes it five times as dear as
a plain one; an execution makes some twenty values with a hundred fields in the scheduler, and as many in the executor.
mypy refuses to assign to a value's field just the same. Nothing else holds it, so what is not type-checked must not
touch them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_type(cls: type[_T]) -> type[_T]:
    """Make a dataclass of a class whose fields are never assigned to; it compares and hashes by its fields."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
