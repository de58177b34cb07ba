"""Whether a tick would find anything, in memory."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from services.scheduler.domain.execution import Phase
from services.scheduler.domain.job import JobState
from services.scheduler.testing.checkpoint import Checkpoint, no_checkpoint, operation
from services.scheduler.testing.memory_execution_store import MemoryExecutionStore
from services.scheduler.testing.memory_job_store import MemoryJobStore


class MemoryDueProbe:
    """Implements `DueProbe` over the stores in memory."""

    def __init__(
        self, jobs: MemoryJobStore, executions: MemoryExecutionStore, checkpoint: Checkpoint = no_checkpoint
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._checkpoint = checkpoint

    async def anything(self, partitions: Collection[int], until: datetime) -> bool:
        """Return whether an ACTIVE job's fire is due, or an execution's wait ends, by `until`."""
        async with operation(self._checkpoint, "due.anything"):
            return any(
                job.state is JobState.ACTIVE
                and job.partition in partitions
                and job.next_due_time is not None
                and job.next_due_time <= until
                for job in self._jobs.jobs.values()
            ) or any(
                execution.phase is Phase.WAITING
                and execution.partition in partitions
                and execution.wake_time is not None
                and execution.wake_time <= until
                for execution in self._executions.executions.values()
            )
