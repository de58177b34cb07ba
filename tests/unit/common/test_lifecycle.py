"""A process's life: signals, drain deadline, failures."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from libs.common.lifecycle import first_of, run, run_until_stopped


async def test_signal_sets_stopping_and_main_drains() -> None:
    steps: list[str] = []

    async def main(stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        steps.append("drained")

    assert await run_until_stopped(main, drain_seconds=5)
    assert steps == ["drained"]


async def test_main_that_does_not_drain_is_cancelled_at_the_deadline() -> None:
    cancelled: list[bool] = []

    async def main(_stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    began = time.monotonic()
    assert not await run_until_stopped(main, drain_seconds=0.01)
    assert cancelled == [True]
    assert time.monotonic() - began < 2


async def test_second_signal_ends_the_drain() -> None:
    async def main(stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    assert not await run_until_stopped(main, drain_seconds=60)


async def test_failure_of_main_is_raised() -> None:
    async def main(_stopping: asyncio.Event) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_until_stopped(main, drain_seconds=1)


def test_run_exits_with_1_when_draining_was_cut() -> None:
    async def main(_stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit) as stop:
        run(main, drain_seconds=0.01)
    assert stop.value.code == 1


def test_run_logs_a_failure_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(_stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup():
            raise RuntimeError("the port is taken")

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "process.failed" in said
    assert "RuntimeError: the port is taken" in said.partition("Traceback")[0]


async def test_first_of_cancels_its_own_coroutines_and_leaves_tasks_alone() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(event.wait())
    await first_of(asyncio.sleep(0), task, asyncio.Event().wait())
    assert not task.done()
    event.set()
    assert await task


def test_a_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    script = (
        "import resource\n"
        "from libs.common.lifecycle import run\n"
        "async def main(stopping): print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "run(main)"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    soft, hard = ran.stdout.split()
    assert soft == hard
