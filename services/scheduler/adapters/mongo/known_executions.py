"""Remembers executions from their insert to their begin and from their grant to their report, as this replica wrote
them, so that each of the two reads a few marks of the record instead of all of it, or nothing where its own write is
told by the database whether they still stood so.

Every write of a live execution changes one of the marks, so a record whose marks are as they were left has not changed
at all. One that other replicas wrote, or that anybody changed meanwhile, is read as a whole. Nothing is lost with the
memory: it spares reads and decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from libs.common.instants import truncate_to_millis
from services.scheduler.domain.execution import Execution

MARKS = ("state", "phase", "fencing_token", "reported_token", "available_time", "wake_time", "cancel_reason")
"""What tells whether a remembered execution still stands as it did."""

MARK_FIELDS = dict.fromkeys(MARKS, 1)

MAX_EXECUTIONS = 20_000
"""Twice of what a dispatcher holds; each takes about a kilobyte."""


class KnownExecutions:
    """The live executions that this replica wrote last."""

    def __init__(self) -> None:
        self._executions: dict[str, tuple[Execution, tuple[object, ...]]] = {}
        """With their marks, the oldest first."""

    def remember(self, executions: Iterable[Execution]) -> None:
        """Remember executions that stand so now, but those whose size has no bound: callbacks and repeated attempts."""
        for execution in executions:
            self._executions.pop(execution.execution_id, None)
            if execution.phase is None or execution.callback is not None or execution.attempts:
                continue
            if len(self._executions) >= MAX_EXECUTIONS:
                del self._executions[next(iter(self._executions))]
            self._executions[execution.execution_id] = execution, _marks_of(execution)

    def forget(self, execution_ids: Iterable[str]) -> None:
        """Let go of executions that ended or wait."""
        for execution_id in execution_ids:
            self._executions.pop(execution_id, None)

    def among(self, execution_ids: Collection[str]) -> list[str]:
        """Return which of the executions are remembered."""
        return [execution_id for execution_id in execution_ids if execution_id in self._executions]

    def get(self, execution_ids: Collection[str]) -> dict[str, Execution]:
        """Return those that are remembered, as they stood then."""
        return {e_id: known[0] for e_id in execution_ids if (known := self._executions.get(e_id)) is not None}

    def recall(self, document: Mapping[str, Any]) -> Execution | None:
        """Return the execution if it stands as its marks were left; None when it has to be read as a whole."""
        execution_id = document["_id"]
        known = self._executions.get(execution_id)
        if known is None:
            return None
        if known[1] == tuple([document.get(mark) for mark in MARKS]):
            return known[0]
        del self._executions[execution_id]
        return None


def _marks_of(execution: Execution) -> tuple[object, ...]:
    """Return the marks as the database has them: instants in milliseconds, and nothing where the default is."""
    available, wake = execution.available_time, execution.wake_time
    return (
        execution.state,
        execution.phase,
        execution.fencing_token,
        execution.reported_token or None,
        available and truncate_to_millis(available),
        wake and truncate_to_millis(wake),
        execution.cancel_reason or None,
    )
