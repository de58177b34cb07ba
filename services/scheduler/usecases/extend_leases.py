"""Renews the leases of attempts that go on, and tells their executors of cancellations."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from libs.common.clock import Clock
from services.scheduler.usecases.ports.execution_store import ExecutionStore


class LeaseVerdict(enum.Enum):
    """What the executor does next with an attempt."""

    EXTENDED = "EXTENDED"
    LOST = "LOST"
    CANCEL = "CANCEL"


@dataclass(frozen=True, slots=True)
class ExtendLeases:
    """Serves the executors' heartbeats."""

    executions: ExecutionStore
    clock: Clock
    lease: timedelta

    async def __call__(self, executor_id: str, leases: Mapping[str, int]) -> dict[str, LeaseVerdict]:
        """Renew leases, given as execution id to fencing token; a lost one stays lost."""
        held = await self.executions.extend(executor_id, leases, self.clock.now() + self.lease)
        verdicts = {}
        for execution_id in leases:
            if execution_id not in held:
                verdicts[execution_id] = LeaseVerdict.LOST
            elif held[execution_id]:
                verdicts[execution_id] = LeaseVerdict.CANCEL
            else:
                verdicts[execution_id] = LeaseVerdict.EXTENDED
        return verdicts
