"""What a seed stands for: the jobs, the weather, and what goes wrong when. Plain values, all drawn from the seed.

Each seed draws a few kinds of trouble and leaves the others out: what goes wrong all the time hides what goes wrong
only when the rest is well.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from services.scheduler.domain.job import (
    CatchUpMode,
    CatchUpPolicy,
    Job,
    JobDefinition,
    OnUnknownOutcome,
    OverlapPolicy,
    RetryPolicy,
    Target,
    TimeoutPolicy,
)
from services.scheduler.domain.schedule import OneTimeAt, Schedule, due_time, first_fire
from services.scheduler.usecases.caller import Caller, OrgScope
from tests.support.simulation.kernel import EPOCH
from tests.support.simulation.seconds_schedule import PERIODS, every

ORG = "org-a"
CALLER = Caller("tester", OrgScope(ORG), frozenset())
URL = "https://target.example/v1"
KINDS = ("scheduler", "dispatcher", "executor")


class Trouble(enum.StrEnum):
    """What can go wrong in a seed."""

    CRASHES = "crashes"
    FREEZES = "freezes"
    DRAINS = "drains"
    OUTAGE = "outage"
    LOST_MESSAGES = "lost messages"
    SLOW_MESSAGES = "slow messages"
    DOUBLED_MESSAGES = "doubled messages"
    DATABASE_ERRORS = "database errors"
    SLOW_DATABASE = "slow database"
    STREAM_LOSS = "stream loss"
    STREAM_AWAY = "stream away"
    STREAM_DOUBLES = "stream doubles"
    SKEW = "skew"
    BAD_TARGET = "bad target"
    SLOW_TARGET = "slow target"
    CALLERS = "callers"


class Action(enum.StrEnum):
    """One thing that happens at a planned instant."""

    CRASH = "crash"
    FREEZE = "freeze"
    DRAIN = "drain"
    FLUSH = "flush"
    STREAM_AWAY = "stream away"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"
    DELETE = "delete"
    RUN = "run"
    CANCEL = "cancel"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Happening:
    """When, what, and to whom: `number` picks among processes or jobs, `seconds` says for how long."""

    at: float
    action: Action
    kind: str = ""
    number: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How messages, the database, the stream and targets behave until the faults cease: chances of 0 to 1."""

    lost: float = 0.0
    slow: float = 0.0
    doubled: float = 0.0
    database_error: float = 0.0
    database_slow: float = 0.0
    stream_error: float = 0.0
    stream_doubled: float = 0.0
    target_bad: float = 0.0
    target_slow: float = 0.0


FAIR = Weather()


@dataclass(frozen=True, slots=True)
class Plan:
    """A seed, spelled out."""

    seed: int
    troubles: frozenset[Trouble]
    jobs: tuple[tuple[float, Job], ...]
    """When each is created, as it is then."""
    happenings: tuple[Happening, ...]
    weather: Weather
    replicas: dict[str, int]
    offsets: dict[str, float]
    """By how much the clocks of each kind of process may be off, seconds."""
    lease_seconds: float
    partition_lease_seconds: float
    fault_seconds: float
    """When the faults cease."""
    end_seconds: float
    """When the last fire is over at the latest."""


def draw(seed: int, always: frozenset[Trouble] = frozenset()) -> Plan:
    """Return what a seed stands for; the troubles of `always` are added to those that it draws."""
    rng = Random(seed)
    troubles = frozenset(rng.sample(tuple(Trouble), rng.choice((0, 1, 2, 3, 4, 6, 8))))
    if Trouble.OUTAGE in troubles and rng.random() < 0.8:
        # Expensive in virtual time, and rarely interesting.
        troubles -= {Trouble.OUTAGE}
    troubles |= always
    lease = rng.choice((3.0, 3.0, 5.0, 15.0))
    end = rng.uniform(8.0, 20.0) + (60.0 if Trouble.OUTAGE in troubles else 0.0)
    jobs = tuple(_job(rng, number, end, troubles) for number in range(rng.randint(2, 5)))
    faults_end = end + rng.uniform(-5.0, 5.0)
    skew = Trouble.SKEW in troubles
    return Plan(
        seed=seed,
        troubles=troubles,
        jobs=jobs,
        happenings=tuple(sorted(_happenings(rng, troubles, len(jobs), faults_end, lease), key=lambda h: h.at)),
        weather=_weather(rng, troubles),
        replicas={
            "scheduler": rng.choice((1, 2, 2, 3)),
            "dispatcher": rng.choice((1, 2, 2)),
            "executor": rng.choice((1, 2, 2)),
        },
        offsets={
            "scheduler": rng.uniform(0.0, 0.9) if skew and rng.random() < 0.5 else 0.0,
            "dispatcher": rng.uniform(0.0, 2.0) if skew else 0.0,
            "executor": rng.uniform(0.0, 2.0) if skew else 0.0,
        },
        lease_seconds=lease,
        partition_lease_seconds=rng.choice((3.0, 8.0)),
        fault_seconds=faults_end,
        end_seconds=end,
    )


def _job(rng: Random, number: int, end: float, troubles: frozenset[Trouble]) -> tuple[float, Job]:
    created = 0.0 if rng.random() < 0.7 else rng.uniform(0.0, end / 2)
    start = EPOCH + timedelta(milliseconds=int(created * 1000))
    if rng.random() < 0.25:
        schedule = Schedule(OneTimeAt(start + timedelta(milliseconds=rng.randint(0, int((end - created) * 900)))))
    else:
        jitter = timedelta(seconds=rng.choice((0, 0, 1, 3)))
        schedule = Schedule(every(rng.choice(PERIODS)), end_time=EPOCH + timedelta(seconds=end), jitter=jitter)
    attempts = rng.choice((1, 2, 3, 4))
    total = rng.choice((2, 4, 8)) if Trouble.SLOW_TARGET in troubles else 4
    definition = JobDefinition(
        name=f"job {number}",
        schedule=schedule,
        target=Target(URL, "Say hello."),
        retry=RetryPolicy(
            max_attempts=attempts,
            initial_backoff=timedelta(seconds=rng.choice((0.1, 0.5, 2.0))),
            max_backoff=timedelta(seconds=rng.choice((2.0, 4.0))),
            max_age=timedelta(seconds=rng.choice((20, 60, 86_400))),
        ),
        timeout=TimeoutPolicy(total=timedelta(seconds=total), connect=timedelta(seconds=1)),
        overlap=rng.choice(tuple(OverlapPolicy)),
        catch_up=CatchUpPolicy(
            rng.choice(tuple(CatchUpMode)), timedelta(seconds=rng.choice((60, 90, 3600))), rng.choice((1, 3, 100))
        ),
        on_unknown_outcome=rng.choice(tuple(OnUnknownOutcome)),
        max_consecutive_failures=rng.choice((2, 5, 100, 100)),
    )
    job_id = f"01K{number:023d}"
    fire = first_fire(schedule, start)
    return created, Job(
        job_id=job_id,
        org_id=ORG,
        definition=definition,
        create_time=start,
        update_time=start,
        creator="tester",
        next_fire_time=fire,
        next_due_time=due_time(schedule, job_id, fire) if fire else None,
        schedule_time=start,
    )


def _happenings(rng: Random, troubles: frozenset[Trouble], jobs: int, end: float, lease: float) -> list[Happening]:
    found: list[Happening] = []

    def some(most: int) -> range:
        return range(rng.randint(1, most))

    def moment() -> float:
        return rng.uniform(0.5, end)

    if Trouble.CRASHES in troubles:
        kinds = KINDS if rng.random() < 0.5 else (rng.choice(KINDS),)
        for _ in some(8):
            # Some come back at once, some after their leases ran out.
            away = rng.choice((0.1, 1.0, 8.0))
            found.append(Happening(moment(), Action.CRASH, rng.choice(kinds), rng.randrange(3), away))
    if Trouble.FREEZES in troubles:
        for _ in some(8):
            # What comes back right after its lease ran out finds the others at work on what it held.
            frozen = rng.choice((0.3, lease, lease, 2 * lease, 20.0)) * rng.uniform(0.8, 1.3)
            kind = rng.choice((*KINDS, "executor"))
            found.append(Happening(moment(), Action.FREEZE, kind, rng.randrange(3), frozen))
    if Trouble.DRAINS in troubles:
        found += [Happening(moment(), Action.DRAIN, rng.choice(KINDS[1:]), rng.randrange(3), 0.5) for _ in some(4)]
    if Trouble.OUTAGE in troubles:
        kind = rng.choice(("scheduler", "dispatcher"))
        begin, away = rng.uniform(3.0, 15.0), rng.uniform(50.0, 75.0)
        found += [Happening(begin, Action.CRASH, kind, number, away) for number in range(3)]
    if Trouble.STREAM_LOSS in troubles:
        found += [Happening(moment(), Action.FLUSH) for _ in some(6)]
    if Trouble.STREAM_AWAY in troubles:
        found += [Happening(moment(), Action.STREAM_AWAY, seconds=rng.uniform(0.5, 8.0)) for _ in some(2)]
    if Trouble.CALLERS in troubles:
        actions = (
            *(Action.PAUSE, Action.RESUME, Action.RESUME, Action.UPDATE, Action.UPDATE),
            *(Action.RUN, Action.CANCEL, Action.REPEAT, Action.DELETE),
        )
        found += [Happening(moment(), rng.choice(actions), number=rng.randrange(jobs)) for _ in some(12)]
    return found


def _weather(rng: Random, troubles: frozenset[Trouble]) -> Weather:
    def chance(trouble: Trouble, most: float) -> float:
        return rng.uniform(0.1, 1.0) * most if trouble in troubles else 0.0

    return Weather(
        lost=chance(Trouble.LOST_MESSAGES, 0.2),
        slow=chance(Trouble.SLOW_MESSAGES, 0.2),
        doubled=chance(Trouble.DOUBLED_MESSAGES, 0.3),
        database_error=chance(Trouble.DATABASE_ERRORS, 0.05),
        database_slow=chance(Trouble.SLOW_DATABASE, 0.2),
        stream_error=chance(Trouble.STREAM_LOSS, 0.2),
        stream_doubled=chance(Trouble.STREAM_DOUBLES, 0.5),
        target_bad=chance(Trouble.BAD_TARGET, 1.0),
        target_slow=chance(Trouble.SLOW_TARGET, 0.8) or rng.choice((0.0, 0.2)),
    )
