"""The shared gates, with the time that Redis takes for them measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libs.common.streams.redis_metrics import RedisMetrics
from services.executor.domain.gate_values import Ask, Note, TargetKey
from services.executor.usecases.ports import GateAnswers, SharedGates


class MeasuredGates:
    """Implements `SharedGates` over others."""

    def __init__(self, gates: SharedGates, measure: RedisMetrics) -> None:
        self._gates = gates
        self._measure = measure

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        """Tell and ask in one round trip."""
        with self._measure.timed("gates_exchange"):
            return await self._gates.exchange(notes, asks)

    async def renew(self, places: Mapping[TargetKey, Sequence[str]], now: int, lease_until: int) -> None:
        """Keep the places of attempts that go on."""
        with self._measure.timed("gates_renew"):
            await self._gates.renew(places, now, lease_until)

    async def restore(self, starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        """Add starts that Redis does not know of."""
        with self._measure.timed("gates_restore"):
            await self._gates.restore(starts)

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        """Tell that an executor is there."""
        with self._measure.timed("gates_sign_of_life"):
            return await self._gates.sign_of_life(executor_id, now)
