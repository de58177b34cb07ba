"""Implements `SharedGates`: gates in Redis, asked by scripts that decide atomically.

    <prefix>:{<org>|<host>|<generation>}:state         circuit, closure, hits
                                        :places        attempts under way, each with its lease
                                        :starts :line  the host's limit
                                        :starts:<job> :line:<job>   a job's limit
    <prefix>:{executors}                               the executors' signs of life

A gate's keys share a hash tag, its jobs' among them, so that one script sees all of it on a Cluster as well. That makes
a job's limit one of the job at its host: when its address changes, the limit begins anew there. All keys expire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from libs.common.streams.connection import RedisClient
from services.executor.adapters.redis_gates.scripts import Call, ScriptRunner, bounded, load_script
from services.executor.domain.circuit import BUCKET, BUCKETS, RECHECK
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Busy,
    CircuitState,
    DeferReason,
    Deferred,
    GateRules,
    GateSummary,
    Note,
    TargetKey,
    Verdict,
)
from services.executor.domain.request_log import EXACT_LATER, HOLD, START_AT_ANY_TIME
from services.executor.domain.target_gate import FIRST_BACKOFF, LEAST_TURN, MOST_BACKOFF, MOST_SPREAD, MOST_TURN
from services.executor.usecases.ports import GateAnswers

STATE_KEPT_MILLIS = 2 * 3600 * 1000
"""How long a gate remembers an idle host's circuit and hits; longer than it can be told to stay away."""
SIGN_OF_LIFE_SECONDS = 5


class RedisGates:
    """The shared gates."""

    def __init__(self, redis: RedisClient, *, key_prefix: str, rules: GateRules, call_seconds: float) -> None:
        # Typed as Any: the two client classes share these commands, but no base class that declares them.
        self._redis: Any = redis
        self._prefix = key_prefix
        self._rules = rules
        self._seconds = call_seconds
        self._runner = ScriptRunner(redis, seconds=call_seconds)
        self._admit = load_script("admit.lua")
        self._note = load_script("note.lua")
        self._renew = load_script("renew.lua")

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        """Tell and ask in one round trip, the notes first, so that a place they give back can be taken at once."""
        calls = [
            *(Call(self._note, self._note_keys(key, note), self._note_arguments(note)) for key, note in notes),
            *(Call(self._admit, self._admit_keys(key, ask), self._admit_arguments(ask)) for key, ask in asks),
        ]
        answers = await self._runner.run(calls)
        told, asked = answers[: len(notes)], answers[len(notes) :]
        return GateAnswers(
            after_notes=tuple(_summary(answer) for answer in told),
            verdicts=tuple(_verdict(answer) for answer in asked),
            after_asks=tuple(_summary(answer[3:]) for answer in asked),
        )

    async def renew(self, places: Mapping[TargetKey, Sequence[str]], now: int, lease_until: int) -> None:
        """Keep the places of attempts that go on; what Redis has forgotten is there again."""
        millis = (lease_until - now) // 1000
        await self._runner.run(
            [
                Call(self._renew, [self._key(key, "state"), self._key(key, "places")], [lease_until, millis, *members])
                for key, members in places.items()
            ]
        )

    async def restore(self, starts: Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]) -> None:
        """Add starts that Redis does not know of: of each job by its id, and of the host under the empty id."""
        millis = 3 * self._rules.counted_window // 1000
        async with bounded(self._seconds):
            pipeline = self._redis.pipeline(transaction=False)
            for key, logs in starts.items():
                for job_id, members in logs.items():
                    name = self._log(key, "starts", job_id)
                    pipeline.zadd(name, dict(members))
                    pipeline.pexpire(name, millis)
            await pipeline.execute()

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        """Tell that this executor is there; return how many there are, and whether Redis knew of this one."""
        key = f"{self._prefix}:{{executors}}"
        async with bounded(self._seconds):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zadd(key, {executor_id: now + SIGN_OF_LIFE_SECONDS * SECOND})
            pipeline.zremrangebyscore(key, "-inf", now)
            pipeline.zcard(key)
            pipeline.expire(key, 2 * SIGN_OF_LIFE_SECONDS)
            added, _, count, _ = await pipeline.execute()
        return int(count), not added

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _key(self, key: TargetKey, part: str) -> str:
        return f"{self._prefix}:{{{key.org_id}|{key.host}|{key.generation}}}:{part}"

    def _log(self, key: TargetKey, part: str, job_id: str) -> str:
        return self._key(key, f"{part}:{job_id}" if job_id else part)

    def _admit_keys(self, key: TargetKey, ask: Ask) -> list[str]:
        parts = ("state", "places", "starts", "line", f"starts:{ask.job_id}", f"line:{ask.job_id}")
        return [self._key(key, part) for part in parts]

    def _note_keys(self, key: TargetKey, note: Note) -> list[str]:
        return [self._key(key, part) for part in ("state", "places", "starts", f"starts:{note.job_id}")]

    def _admit_arguments(self, ask: Ask) -> list[str | int]:
        asked: list[str | int] = [ask.execution_id, ask.member, ask.at, ask.now]
        asked += [ask.job_limit, ask.host_limit, ask.concurrent_limit, ask.lease_until, ask.turn, ask.spread]
        rules = [self._rules.counted_window, self._rules.tolerance, HOLD, EXACT_LATER, RECHECK]
        return [*asked, *rules, LEAST_TURN, MOST_TURN, MOST_SPREAD, START_AT_ANY_TIME, STATE_KEPT_MILLIS]

    def _note_arguments(self, note: Note) -> list[str | int]:
        told = note.feedback
        circuit = self._rules.circuit
        ended: list[str | int] = [note.member, note.now, int(note.started)]
        ended += [told.health.value, int(told.limited), int(told.succeeded), told.close_until]
        rules = [circuit.min_calls, circuit.failure_percent, circuit.open_micros, circuit.most_open_micros]
        return [*ended, *rules, BUCKET, BUCKETS, FIRST_BACKOFF, MOST_BACKOFF, STATE_KEPT_MILLIS]


def _verdict(answer: Sequence[bytes]) -> Verdict:
    kind, number, rest = answer[0], int(answer[1]), answer[2].decode()
    match kind:
        case b"ADMITTED":
            return Admitted(number, int(rest))
        case b"DEFERRED":
            return Deferred(number, DeferReason(rest))
        case _:
            return Busy()


def _summary(answer: Sequence[bytes]) -> GateSummary:
    circuit, circuit_until, closed_until, hits = answer
    return GateSummary(CircuitState(circuit.decode()), int(circuit_until), int(closed_until), int(hits))
