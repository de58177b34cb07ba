"""Overlap × catch-up × pause × jitter: whatever the policies, each fire of an outage is decided once and on record.

A job fires every quarter of an hour. The dispatchers are away for an hour, during which the job may be paused, and
resumed or not. Then executors begin all that they get and end it together, so that what could overlap does.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.scheduler.domain.execution import ExecutionState
from services.scheduler.domain.job import CatchUpMode, CatchUpPolicy, Job, JobState, OverlapPolicy
from services.scheduler.domain.schedule import Cron, Schedule, due_time
from tests.support.scheduler_values import HOUR, MINUTE, NOW, SECOND, at
from tests.support.scheduler_world import World

QUARTER = 15 * MINUTE
FIRES = [NOW + number * QUARTER for number in range(1, 5)]
"""What fires in the hour."""
PAUSES = {"active": (), "paused for a while": (20, 40), "paused for good": (20,)}
"""Minutes of the hour at which the job is paused and resumed."""
KEPT = {"active": FIRES, "paused for a while": [FIRES[0], *FIRES[2:]], "paused for good": FIRES[:1]}
"""The fires that come to be: a job that is paused does not fire."""
HELD = {"active": 0, "paused for a while": 1, "paused for good": 1}
"""How many of them, from the first on, are skipped because of it: a pause settles what has come before it."""
SKIP_REASONS = {"OVERLAP", "COALESCED", "MISSED", "JOB_PAUSED"}


@pytest.mark.parametrize("overlap", OverlapPolicy)
@pytest.mark.parametrize("mode", CatchUpMode)
@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("jitter", [timedelta(0), 4 * MINUTE], ids=["on the dot", "jitter"])
async def test_every_fire_of_an_outage_is_decided_once(
    world: World, overlap: OverlapPolicy, mode: CatchUpMode, pause: str, jitter: timedelta
) -> None:
    schedule = Schedule(Cron("*/15 * * * *"), jitter=jitter)
    job = await world.job(schedule=schedule, overlap=overlap, catch_up=CatchUpPolicy(mode, window=2 * HOUR))
    await outage(world, job, PAUSES[pause])
    # Past the last fire's jitter and grace, and short of the next fire's horizon.
    await world.advance(NOW + HOUR + 10 * MINUTE - world.clock.now())
    await work_off(world, job)

    fires = world.fires(job)
    assert list(fires) == KEPT[pause], "each fire has one record"
    for fire, execution in fires.items():
        assert execution.due_time == due_time(schedule, job.job_id, fire)
        assert execution.state in {ExecutionState.SUCCEEDED, ExecutionState.SKIPPED}
        if execution.state is ExecutionState.SKIPPED:
            assert execution.state_reason in SKIP_REASONS
            assert execution.start_time is None
    held = HELD[pause]
    # What had been missed already when the pause came is said to be so, where missed fires do not run anyway.
    assert world.reasons(job)[:held] == (["MISSED"] if mode is CatchUpMode.NONE else ["JOB_PAUSED"]) * held
    assert world.reasons(job)[held:] == missed(overlap, mode, len(fires) - held)
    assert world.job_state(job) is (JobState.PAUSED if pause == "paused for good" else JobState.ACTIVE)


def missed(overlap: OverlapPolicy, mode: CatchUpMode, count: int) -> list[str]:
    """Return what becomes of fires that nobody could run in time."""
    ran = ["SUCCEEDED"]
    match mode:
        case CatchUpMode.NONE:
            return ["MISSED"] * count
        case CatchUpMode.LATEST:
            return (["COALESCED"] * (count - 1) + ran)[:count]
        case _ if overlap is OverlapPolicy.ALLOW:
            return ran * count
        case _:
            # They run at once: the first takes the slot, and where there is a queue the next one waits in it.
            running = 2 if overlap is OverlapPolicy.QUEUE_ONE else 1
            return (ran * running + ["OVERLAP"] * count)[:count]


async def outage(world: World, job: Job, pauses: tuple[int, ...]) -> None:
    """Let an hour pass without a tick; the job is paused at the first of the minutes and resumed at the second."""
    for change, minute in zip((world.pause, world.resume), pauses, strict=False):
        await world.advance(NOW + minute * MINUTE - world.clock.now())
        await change(job)
    await world.advance(NOW + HOUR - world.clock.now())


async def work_off(world: World, job: Job) -> None:
    """Tick, begin all there is, end it together, and so on until nothing is left to do."""
    for _ in range(20):
        ids = await world.delivered()
        granted = [*(await world.begin(*ids)).granted] if ids else []
        await world.advance(3 * SECOND)
        granted += (await world.poll()).granted
        for attempt in granted:
            assert await world.report(attempt)
        await world.advance(3 * SECOND)
        live = [e for e in world.fires(job).values() if not e.state.is_final]
        if not live and not ids:
            return
    pytest.fail(f"left undecided at {world.clock.now() - at(0)}: {world.reasons(job)}")
