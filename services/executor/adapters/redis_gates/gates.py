"""Implements `SharedGates`: gates in Redis, asked by scripts that decide atomically.

    <prefix>:{<org>|<host>|<generation>}:state         circuit, closure, hits
                                        :places        attempts under way, each with its lease
                                        :starts :line  the host's limit
                                        :starts:<job> :line:<job>   a job's limit
    <prefix>:{executors}                               the executors' signs of life

A gate's keys share a hash tag, its jobs' among them, so that one script sees all of it on a Cluster as well. That makes
a job's limit one of the job at its host: when its address changes, the limit begins anew there. All keys expire.

One run of a script serves many attempts at a gate: what it costs is mostly the call and the gate's state, not the
attempt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

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
MAX_TOGETHER = 100
"""Attempts in one run of a script; it keeps Redis from everybody else for about a millisecond."""


class RedisGates:
    """The shared gates."""

    def __init__(self, redis: RedisClient, *, key_prefix: str, rules: GateRules, call_seconds: float) -> None:
        # Typed as Any: the two client classes share these commands, but no base class that declares them.
        self._redis: Any = redis
        self._prefix = key_prefix
        self._rules = rules
        self._seconds = call_seconds
        self._last_sign = 0
        self._runner = ScriptRunner(redis, seconds=call_seconds)
        self._admit = load_script("admit.lua")
        self._note = load_script("note.lua")
        self._renew = load_script("renew.lua")
        self._admit_rules = orjson.dumps(_admit_rules(rules))
        self._note_rules = orjson.dumps(_note_rules(rules))

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> GateAnswers:
        """Tell and ask in one round trip, the notes first, so that a place they give back can be taken at once."""
        note_groups, ask_groups = _by_gate(notes), _by_gate(asks)
        calls = [self._note_call(key, [notes[index][1] for index in group]) for key, group in note_groups]
        calls += [self._admit_call(key, [asks[index][1] for index in group]) for key, group in ask_groups]
        answers = await self._runner.run(calls)
        told = _in_order(note_groups, answers[: len(note_groups)], len(notes))
        asked = _in_order(ask_groups, answers[len(note_groups) :], len(asks))
        return GateAnswers(
            after_notes=tuple(_summary(*answer) for answer in told),
            verdicts=tuple(_verdict(answer) for answer in asked),
            after_asks=tuple(_summary(*answer[3:]) for answer in asked),
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
        logs = [
            (self._log(key, "starts", job_id), dict(members))
            for key, of_jobs in starts.items()
            for job_id, members in of_jobs.items()
        ]
        # In pieces: thousands of jobs in one would take longer than Redis is given, and would hold up all else here.
        for begin in range(0, len(logs), MAX_TOGETHER):
            async with bounded(self._seconds):
                pipeline = self._redis.pipeline(transaction=False)
                for name, members in logs[begin : begin + MAX_TOGETHER]:
                    pipeline.zadd(name, members)
                    pipeline.pexpire(name, millis)
                await pipeline.execute()

    async def sign_of_life(self, executor_id: str, now: int) -> tuple[int, bool]:
        """Tell that this executor is there; return how many there are, and whether Redis knew of this one."""
        key, until = f"{self._prefix}:{{executors}}", now + SIGN_OF_LIFE_SECONDS * SECOND
        async with bounded(self._seconds):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zscore(key, executor_id)
            pipeline.zadd(key, {executor_id: until})
            pipeline.zremrangebyscore(key, "-inf", now)
            pipeline.zcard(key)
            pipeline.expire(key, 2 * SIGN_OF_LIFE_SECONDS)
            before, _, _, count, _ = await pipeline.execute()
        # An older sign than the last one: it came back with what it had saved some time ago.
        known = before is not None and before >= self._last_sign
        self._last_sign = until
        return int(count), known

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _key(self, key: TargetKey, part: str) -> str:
        return f"{self._prefix}:{{{key.org_id}|{key.host}|{key.generation}}}:{part}"

    def _log(self, key: TargetKey, part: str, job_id: str) -> str:
        return self._key(key, f"{part}:{job_id}" if job_id else part)

    def _admit_call(self, key: TargetKey, asks: Sequence[Ask]) -> Call:
        keys = [self._key(key, part) for part in ("state", "places", "starts", "line")]
        for ask in asks:
            keys += (f"{keys[2]}:{ask.job_id}", f"{keys[3]}:{ask.job_id}")
        return Call(self._admit, keys, [orjson.dumps([_asked(ask) for ask in asks]), self._admit_rules])

    def _note_call(self, key: TargetKey, notes: Sequence[Note]) -> Call:
        keys = [self._key(key, part) for part in ("state", "places", "starts")]
        keys += [f"{keys[2]}:{note.job_id}" for note in notes]
        return Call(self._note, keys, [orjson.dumps([_told(note) for note in notes]), self._note_rules])


def _by_gate(items: Sequence[tuple[TargetKey, object]]) -> list[tuple[TargetKey, list[int]]]:
    """Return for each run of a script its gate and the places of its items; at each gate they keep their order."""
    groups: defaultdict[TargetKey, list[int]] = defaultdict(list)
    for index, (key, _) in enumerate(items):
        groups[key].append(index)
    return [
        (key, group[start : start + MAX_TOGETHER])
        for key, group in groups.items()
        for start in range(0, len(group), MAX_TOGETHER)
    ]


def _in_order(
    groups: Sequence[tuple[TargetKey, list[int]]], answers: Sequence[Sequence[Any]], count: int
) -> list[list[bytes]]:
    """Return the answers for single items, in the items' order."""
    found: list[list[bytes]] = [[]] * count
    for (_, group), answer in zip(groups, answers, strict=True):
        for index, item in zip(group, answer, strict=True):
            found[index] = item
    return found


def _asked(ask: Ask) -> list[str | int]:
    limits = (ask.job_limit, ask.host_limit, ask.concurrent_limit)
    return [ask.execution_id, ask.member, ask.at, ask.now, *limits, ask.lease_until, ask.turn, ask.spread]


def _told(note: Note) -> list[str | int | bool]:
    told = note.feedback
    return [note.member, note.now, note.started, told.health.value, told.limited, told.succeeded, told.close_until]


def _admit_rules(rules: GateRules) -> list[int]:
    slots = [rules.counted_window, rules.tolerance, HOLD, EXACT_LATER, RECHECK]
    return [*slots, LEAST_TURN, MOST_TURN, MOST_SPREAD, START_AT_ANY_TIME, STATE_KEPT_MILLIS]


def _note_rules(rules: GateRules) -> list[int]:
    circuit = rules.circuit
    opening = [circuit.min_calls, circuit.failure_percent, circuit.open_micros, circuit.most_open_micros]
    return [*opening, BUCKET, BUCKETS, FIRST_BACKOFF, MOST_BACKOFF, STATE_KEPT_MILLIS]


def _verdict(answer: Sequence[bytes]) -> Verdict:
    kind, number, rest = answer[0], int(answer[1]), answer[2].decode()
    match kind:
        case b"ADMITTED":
            return Admitted(number, int(rest))
        case b"DEFERRED":
            return Deferred(number, DeferReason(rest))
        case _:
            return Busy()


# Gates mostly stay as they are.
@lru_cache(maxsize=1024)
def _summary(circuit: bytes, circuit_until: bytes, closed_until: bytes, hits: bytes) -> GateSummary:
    return GateSummary(CircuitState(circuit.decode()), int(circuit_until), int(closed_until), int(hits))
