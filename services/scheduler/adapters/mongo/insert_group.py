"""Lets single inserts that come at the same time share one write.

A durable write costs the database much the same for one job as for fifty. So while one write is under way, those that
come wait for it to end and then go together; one that comes alone goes at once, and waits for nobody.

Each caller learns what came of its own job. A write that fails fails for all that shared it: none of them may be sure
of anything, as none could after a write of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence

from services.scheduler.adapters.audit_trail import mark_event_stored
from services.scheduler.domain.job import Job
from services.scheduler.usecases.audit import AuditEvent

MAX_GROUP = 250
"""Jobs that share one write."""

Write = Callable[[Sequence[Job], Sequence[AuditEvent]], Awaitable[frozenset[str]]]
_Waiting = tuple[Job, Sequence[AuditEvent], "asyncio.Future[bool]"]


class InsertGroup:
    """Collects inserts of one job each."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def insert(self, job: Job, audits: Sequence[AuditEvent]) -> frozenset[str]:
        """Store a job with its event, if it has one; returns its id if it was refused."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, audits, done))
        if self._writing is None or self._writing.done():
            # In a context of its own: the write belongs to no single call, and must not count as that call's.
            self._writing = asyncio.create_task(self._write_all(), context=contextvars.Context())
        refused = await done
        if audits and not refused:
            mark_event_stored()
        return frozenset({job.job_id}) if refused else frozenset()

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            try:
                refused = await self._write(
                    [job for job, _, _ in group], [audit for _, audits, _ in group for audit in audits]
                )
            except Exception as error:  # noqa: BLE001 - it is the callers', who wait for it
                for _, _, done in group:
                    if not done.done():
                        done.set_exception(error)
            else:
                for job, _, done in group:
                    if not done.done():
                        done.set_result(job.job_id in refused)
