"""The scripts in Redis against the rules in the domain: whatever is told and asked, both answer the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.common.errors import UnavailableError
from libs.common.streams.connection import open_redis
from services.executor.adapters.redis_gates.gates import RedisGates
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Busy,
    CircuitRules,
    CircuitState,
    DeferReason,
    Deferred,
    Feedback,
    GateRules,
    Health,
    Note,
    TargetKey,
    Verdict,
)
from services.executor.domain.target_gate import TargetGate
from tools.devstack.ports import free_ports
from tools.devstack.valkey_cluster import ValkeyCluster

T0 = 1_767_225_600 * SECOND + 123_456
RULES = GateRules(
    10 * SECOND, CircuitRules(min_calls=6, failure_percent=50, open_micros=3 * SECOND, most_open_micros=12 * SECOND)
)
TARGET = TargetKey("acme", "api.example:443", 0)
NOTHING = Feedback()


def an_ask(name: str = "e1", *, now: int = T0, **changes: int) -> Ask:
    ask = Ask(name, 1, "job", now, now, job_limit=0, host_limit=0, concurrent_limit=0, lease_until=now + 15 * SECOND)
    return replace(ask, **changes)


def a_note(name: str, *, now: int, started: bool = True, feedback: Feedback = NOTHING) -> Note:
    return Note(name, 1, "job", now, started, feedback)


@pytest.fixture
async def gates(redis_url: str, redis_prefix: str) -> AsyncIterator[RedisGates]:
    gates = RedisGates(open_redis(redis_url), key_prefix=redis_prefix, rules=RULES, call_seconds=5)
    yield gates
    await gates.close()


class Both:
    """A gate in Redis and one in memory, told and asked the same; the answers must be equal."""

    def __init__(self, gates: RedisGates, target: TargetKey) -> None:
        self._shared = gates
        self._target = target
        self._own = TargetGate(RULES)

    async def ask(self, ask: Ask) -> Verdict:
        answers = await self._shared.exchange([], [(self._target, ask)])
        assert answers.verdicts == (self._own.admit(ask),)
        assert answers.after_asks == (self._own.summary,)
        return answers.verdicts[0]

    async def tell(self, note: Note) -> None:
        answers = await self._shared.exchange([(self._target, note)], [])
        self._own.note(note)
        assert answers.after_notes == (self._own.summary,)

    async def renew(self, member: str, now: int) -> None:
        await self._shared.renew({self._target: [member]}, now, now + 15 * SECOND)
        self._own.renew(member, now + 15 * SECOND)


FEEDBACKS = [
    (6, Feedback(Health.HEALTHY, succeeded=True)),
    (3, Feedback(Health.FAILED)),
    (1, Feedback()),
    (1, Feedback(Health.HEALTHY, limited=True)),
]


@pytest.mark.parametrize("seed", range(12))
async def test_the_scripts_follow_the_rules(gates: RedisGates, seed: int) -> None:
    chance = random.Random(seed)
    both = Both(gates, TargetKey("acme", f"host-{seed}:443", seed))
    limits = {
        "job_limit": chance.choice([0, 2, 5]),
        "host_limit": chance.choice([0, 3, 8, 200]),
        "concurrent_limit": chance.choice([0, 2, 6]),
    }
    now, running, waiting = T0, list[Ask](), list[tuple[int, Ask]]()
    kinds = set[str]()
    for number in range(400):
        now += chance.choice([0, 1, 1_000, 40_000, 300_000, 2_000_000 if chance.random() < 0.2 else 7])
        match chance.random():
            case x if x < 0.35 and running:
                over = running.pop(chance.randrange(len(running)))
                feedback = chance.choices([f for _, f in FEEDBACKS], [w for w, _ in FEEDBACKS])[0]
                if chance.random() < 0.05:
                    feedback = replace(feedback, close_until=now + chance.randrange(1, 5) * SECOND)
                note = Note(over.execution_id, over.fencing_token, over.job_id, now, chance.random() < 0.9, feedback)
                await both.tell(note)
            case x if x < 0.4 and running:
                await both.renew(chance.choice(running).member, now)
            case _:
                back = next((item for item in waiting if item[0] <= now + SECOND // 4), None)
                if back is not None:
                    waiting.remove(back)
                    ask = replace(back[1], fencing_token=back[1].fencing_token + 1)
                else:
                    ask = an_ask(f"e{number}", job_id=chance.choice("abc"), **limits)  # type: ignore[arg-type]
                due = max(now, back[0] if back else now + chance.choice([0, 0, 250_000]))
                turn = chance.choice([0, 20_000])
                spread = chance.randrange(SECOND)
                ask = replace(ask, at=due, now=now, lease_until=now + 15 * SECOND, turn=turn, spread=spread)
                verdict = await both.ask(ask)
                kinds.add(type(verdict).__name__)
                if isinstance(verdict, Admitted):
                    running.append(ask)
                elif isinstance(verdict, Deferred):
                    kinds.add(verdict.reason)
                    waiting.append((verdict.until, ask))
                    waiting.sort(key=lambda item: item[0])
    assert "Admitted" in kinds
    assert len(kinds) >= 3, kinds


@pytest.mark.parametrize("seed", range(4))
async def test_batches_are_answered_as_one_after_the_other(gates: RedisGates, seed: int) -> None:
    chance = random.Random(seed)
    targets = [TargetKey("acme", f"batch-{seed}-{n}:443", 0) for n in range(3)]
    own = {target: TargetGate(RULES) for target in targets}
    limits = [{"job_limit": 3, "host_limit": 40}, {"concurrent_limit": 5}, {"job_limit": 60, "concurrent_limit": 130}]
    now, running, number = T0, list[tuple[TargetKey, Ask]](), 0
    for _ in range(25):
        now += chance.choice([1_000, 300_000, 4_000_000])
        chance.shuffle(running)
        count = chance.randrange(len(running) + 1)
        ended, running = running[:count], running[count:]
        notes = [
            (target, Note(ask.execution_id, 1, ask.job_id, now, chance.random() < 0.9, chance.choice(FEEDBACKS)[1]))
            for target, ask in ended
        ]
        asks = []
        for _ in range(chance.randrange(260)):
            number, which = number + 1, chance.randrange(3)
            ask = an_ask(f"e{number}", now=now + number % 3, job_id=chance.choice("abc"), **limits[which])  # type: ignore[arg-type]
            asks.append(
                (targets[which], replace(ask, turn=chance.choice([0, 20_000]), spread=chance.randrange(SECOND)))
            )
        answers = await gates.exchange(notes, asks)
        expected = [(own[target].note(note), own[target].summary)[1] for target, note in notes]
        assert list(answers.after_notes) == expected
        for (target, ask), verdict, summary in zip(asks, answers.verdicts, answers.after_asks, strict=True):
            assert (verdict, summary) == (own[target].admit(ask), own[target].summary)
            if isinstance(verdict, Admitted):
                running.append((target, ask))


async def test_a_batch_is_answered_in_order_and_notes_come_first(gates: RedisGates) -> None:
    one = {"concurrent_limit": 1}
    await gates.exchange([], [(TARGET, an_ask("a", **one))])
    answers = await gates.exchange(
        [(TARGET, a_note("a", now=T0 + 1))], [(TARGET, an_ask("b", now=T0 + 1, **one)), (TARGET, an_ask("c", **one))]
    )
    assert [type(verdict) for verdict in answers.verdicts] == [Admitted, Busy]


async def test_orgs_hosts_and_generations_share_nothing(gates: RedisGates) -> None:
    keys = [TARGET, TARGET._replace(org_id="other"), TARGET._replace(host="x:1"), TARGET._replace(generation=1)]
    answers = await gates.exchange([], [(key, an_ask(host_limit=1)) for key in keys])
    assert [type(verdict) for verdict in answers.verdicts] == [Admitted] * 4
    again = await gates.exchange([], [(TARGET, an_ask("e2", host_limit=1))])
    assert again.verdicts == (Deferred(T0 + RULES.counted_window, DeferReason.TARGET_RATE_LIMIT),)


async def test_places_of_a_dead_executor_come_back(gates: RedisGates) -> None:
    ask = an_ask("a", concurrent_limit=1)
    await gates.exchange([], [(TARGET, ask)])
    later = ask.lease_until
    before = await gates.exchange([], [(TARGET, an_ask("b", now=later - 1, concurrent_limit=1))])
    after = await gates.exchange([], [(TARGET, an_ask("b", now=later, concurrent_limit=1))])
    assert (type(before.verdicts[0]), type(after.verdicts[0])) == (Busy, Admitted)


async def test_renewal_puts_back_a_place_that_redis_forgot(gates: RedisGates) -> None:
    await gates.renew({TARGET: ["a#1"]}, T0, T0 + 15 * SECOND)
    answers = await gates.exchange([], [(TARGET, an_ask("b", now=T0 + SECOND, concurrent_limit=1))])
    assert answers.verdicts == (Busy(),)


async def test_starts_that_redis_forgot_count_again_once_they_are_restored(gates: RedisGates) -> None:
    await gates.restore({TARGET: {"": [("a#1", T0)], "job": [("a#1", T0), ("b#1", T0)]}})
    host = await gates.exchange([], [(TARGET, an_ask("c", now=T0 + 1, host_limit=1))])
    job = await gates.exchange([], [(TARGET, an_ask("d", now=T0 + 1, job_limit=2))])
    assert host.verdicts == (Deferred(T0 + RULES.counted_window, DeferReason.TARGET_RATE_LIMIT),)
    assert job.verdicts == (Deferred(T0 + RULES.counted_window, DeferReason.JOB_RATE_LIMIT),)


async def test_signs_of_life_are_counted_while_they_last(gates: RedisGates) -> None:
    assert await gates.sign_of_life("x1", T0) == (1, False)
    assert await gates.sign_of_life("x2", T0 + SECOND) == (2, False)
    assert await gates.sign_of_life("x2", T0 + 5 * SECOND) == (1, True)


async def test_a_server_that_came_back_with_an_older_state_knows_nobody(
    gates: RedisGates, redis_url: str, redis_prefix: str
) -> None:
    key = f"{redis_prefix}:{{executors}}"
    await gates.sign_of_life("x1", T0)
    async with open_redis(redis_url) as redis:
        saved = await redis.dump(key)
        assert await gates.sign_of_life("x1", T0 + 2 * SECOND) == (1, True)
        await redis.restore(key, 60_000, saved, replace=True)
    assert await gates.sign_of_life("x1", T0 + 4 * SECOND) == (1, False)
    assert await gates.sign_of_life("x1", T0 + 6 * SECOND) == (1, True)


async def test_a_server_that_lost_its_scripts_is_taught_again(gates: RedisGates, redis_url: str) -> None:
    await gates.exchange([], [(TARGET, an_ask("a"))])
    async with open_redis(redis_url) as redis:
        await redis.script_flush()  # type: ignore[no-untyped-call]
    answers = await gates.exchange([(TARGET, a_note("a", now=T0))], [(TARGET, an_ask("b"))])
    assert isinstance(answers.verdicts[0], Admitted)
    assert answers.after_notes[0].circuit is CircuitState.CLOSED


async def test_every_key_expires(gates: RedisGates, redis_url: str, redis_prefix: str) -> None:
    asks = [an_ask(f"e{n}", host_limit=1, job_limit=5, concurrent_limit=1, turn=1) for n in range(3)]
    await gates.exchange([], [(TARGET, ask) for ask in asks])
    await gates.exchange([(TARGET, a_note("e0", now=T0, feedback=Feedback(Health.FAILED, limited=True)))], [])
    await gates.sign_of_life("x", T0)
    async with open_redis(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(f"{redis_prefix}*")]
        assert len(keys) >= 4
        for key in keys:
            assert 0 < await redis.pttl(key) <= 2 * 3600 * 1000, key


async def test_without_redis_it_says_so_in_time() -> None:
    [port] = free_ports(1)
    gates = RedisGates(open_redis(f"redis://127.0.0.1:{port}"), key_prefix="x", rules=RULES, call_seconds=0.5)
    with pytest.raises(UnavailableError):
        await gates.exchange([], [(TARGET, an_ask())])
    with pytest.raises(UnavailableError):
        await gates.sign_of_life("x", T0)
    await gates.close()


async def test_gates_of_many_hosts_spread_over_a_cluster(server_folder: Path) -> None:
    cluster = ValkeyCluster(server_folder)
    await cluster.start()
    try:
        address = cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        gates = RedisGates(open_redis(address), key_prefix="p", rules=RULES, call_seconds=5)
        keys = [TARGET._replace(host=f"host-{n}:443") for n in range(12)]
        asks = [(key, an_ask(f"e{n}", job_limit=1, host_limit=1, concurrent_limit=1)) for n in range(2) for key in keys]
        answers = await gates.exchange([], asks)
        kinds = [type(verdict) for verdict in answers.verdicts]
        assert (kinds[:12], kinds[12:]) == ([Admitted] * 12, [Deferred] * 12)
        await gates.renew({key: ["e0#1"] for key in keys}, T0, T0 + SECOND)
        await gates.restore({key: {"": [("a#1", T0)]} for key in keys})
        assert await gates.sign_of_life("x", T0) == (1, False)
        sizes = [int(await server.command("DBSIZE")) for server in cluster.servers]
        assert all(sizes), sizes
        await gates.close()
    finally:
        await cluster.stop()
