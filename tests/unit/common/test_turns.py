"""Loops over batches share the event loop: whatever their number, one goes on at a time, and short calls pass."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from libs.common.turns import ITEMS_A_TURN, in_turns

BATCH = range(4 * ITEMS_A_TURN)


async def take(items: Iterable[int], log: list[str], name: str) -> list[int]:
    taken = []
    async for item in in_turns(items):
        if item % ITEMS_A_TURN == 0:
            log.append(name)
        taken.append(item)
    return taken


async def test_all_items_come_in_order() -> None:
    assert await take(BATCH, [], "") == list(BATCH)
    assert await take((), [], "") == []


async def test_batches_take_turns_and_the_loop_goes_round_between_any_two() -> None:
    log: list[str] = []

    async def short_calls() -> None:
        while True:
            log.append(".")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        batches = [group.create_task(take(BATCH, log, name)) for name in "abc"]
        calls = group.create_task(short_calls())
        await asyncio.gather(*batches)
        calls.cancel()
    after_the_first_slices = "".join(log[3:])
    assert not [pair for pair in ("ab", "bc", "ca", "aa") if pair in after_the_first_slices]
    assert after_the_first_slices.replace(".", "") == "abcabcabc"


async def test_a_batch_that_is_given_up_passes_its_turn_on() -> None:
    log: list[str] = []
    tasks = [asyncio.create_task(take(BATCH, log, name)) for name in "ab"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1] == list(BATCH)
