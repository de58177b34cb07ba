"""`make run`: the databases, the three services, a target to call, and the main job, in one terminal.

Ends on Ctrl-C, SIGTERM or SIGHUP with everything stopped in order; a second signal changes nothing, since stopping is
bounded. Killed outright, it takes its children with it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tools.devstack.console import Console
from tools.devstack.demo import run_demo
from tools.devstack.process import ChildFailedError
from tools.devstack.stack import FolderInUseError, running_stack


def main() -> int:
    """Run the stack until a signal, or with `--once` until the demo has ended; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.devstack", description="Runs all of Punctual locally.")
    parser.add_argument("--executors", type=int, default=1, metavar="N", help="executors to run (default: 1)")
    parser.add_argument("--data", type=Path, default=Path(".data/devstack"), help="where the databases keep their data")
    parser.add_argument("--no-demo", action="store_true", help="only run the services")
    parser.add_argument("--once", action="store_true", help="end after the demo's one-time job; the code says how")
    arguments = parser.parse_args()
    console = Console(sys.stdout)
    try:
        return asyncio.run(run(arguments, console))
    except (ChildFailedError, FolderInUseError, OSError) as error:
        console.sink("devstack")(str(error))
        return 1


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the stack and the demo in it; a signal cancels this."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in a task here

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        async with running_stack(arguments.data, executors=arguments.executors, console=console) as addresses:
            if not arguments.no_demo:
                target = f"http://{addresses.echo_target}/v1/echo"
                say = console.sink("demo")
                code = await run_demo(addresses.scheduler_public, target, say, once=arguments.once)
                if arguments.once:
                    return code
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not task.cancelling():
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
