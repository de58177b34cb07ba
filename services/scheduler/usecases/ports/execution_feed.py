"""Changes of executions as they happen."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.domain.execution import (
    Execution,
    ExecutionState,
)
from services.scheduler.usecases.caller import OrgScope


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Which changes a watch shows; what is empty does not restrict."""

    job_id: str = ""
    project_id: str = ""
    states: frozenset[ExecutionState] = frozenset()


class ExecutionChanges(Protocol):
    """An open stream of changes."""

    @property
    def resume_token(self) -> str:
        """Continues after what was returned last."""
        ...

    async def next(self) -> Execution | None:
        """Return the next changed execution, without its answer's bytes, or None after a moment without a change.

        Raises:
            OutOfRangeError: the place to continue from is too old by now.
        """
        ...


class ExecutionFeed(Protocol):
    """Tells of changes of executions as they happen."""

    def open(
        self, scope: OrgScope, where: WatchFilter, resume_token: str
    ) -> AbstractAsyncContextManager[ExecutionChanges]:
        """Watch from now on, or from where a token says.

        Raises:
            InvalidArgumentError: the token is not one of ours.
            OutOfRangeError: the token is too old.
        """
        ...
