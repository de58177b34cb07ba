"""One child process: started, watched, made to fail on purpose, and surely ended.

A child has its own process group, so that Ctrl-C in the terminal reaches only the parent, which then ends its children
in order. It dies with its parent whatever kills that one (see die_with_parent), and is only ever signalled through its
own handle, never by name. Nothing here is bound to an event loop: a child may be started under one loop and stopped
under another, as session fixtures do. Start children from the main thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from tools.devstack import die_with_parent
from tools.devstack.waiting import PAUSE_SECONDS, wait_until

LineSink = Callable[[str], None]

KEPT_LINES = 30


class ChildFailedError(Exception):
    """A child ended while it was needed; carries the last lines that it said."""

    def __init__(self, name: str, code: int, last_lines: str) -> None:
        super().__init__(f"{name} ended with code {code}; its last lines:\n{last_lines}")


class ChildProcess:
    """A command that runs as a child of this process; may be started again after it has ended.

    Args:
        name: what people call it.
        argv: the command; a program without a slash is looked up on PATH.
        output: where stdout and stderr go together: a file, which is appended to, or a callable that gets each line
            on a reader thread.
        env: the child's whole environment; ours when None.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, output: Path | LineSink, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._output = output
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended; a suspended child is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running child, or of the last one."""
        return self._started().pid

    def start(self) -> None:
        """Start the child and return at once."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        argv = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *self._argv]
        if isinstance(self._output, Path):
            with self._output.open("ab") as log:
                self._process = self._spawn(argv, log)
            return
        self._process = self._spawn(argv, subprocess.PIPE)
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
        self._reader = threading.Thread(
            target=self._read_lines, args=(self._process.stdout, self._output), name=f"{self.name}-log", daemon=True
        )
        self._reader.start()

    async def wait(self) -> int:
        """Wait until the child ends; return its exit code, negative for a signal."""
        process = self._started()
        while (code := process.poll()) is None:  # noqa: ASYNC110 - an event of the loop would bind the child to it
            await asyncio.sleep(PAUSE_SECONDS)
        if self._reader is not None:
            # The pipe ends with the child; a grandchild that holds it open is not waited for.
            self._reader.join(timeout=1)
        return code

    async def wait_ready(self, probe: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Wait until `probe` holds.

        Raises:
            ChildFailedError: the child ended first.
            TimeoutError: it still runs but was not ready in time.
        """

        async def ready() -> bool:
            if not self.running:
                raise ChildFailedError(self.name, self._started().returncode, self._tail())
            return await probe()

        await wait_until(ready, seconds=seconds, what=f"{self.name} ready")

    async def stop(self, *, seconds: float = 5.0) -> None:
        """Ask the child to end with SIGTERM, and kill it if it has not within `seconds`. Does nothing if it ended."""
        if not self.running:
            return
        self.resume()  # A suspended process would not see the request.
        self._started().terminate()
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """Kill the child as a crash would, without a chance to tidy up, and see it dead."""
        self._started().kill()
        self._started().wait()

    def suspend(self) -> None:
        """Freeze the child: it keeps its connections and answers nothing."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen child go on."""
        self._started().send_signal(signal.SIGCONT)

    def _spawn(self, argv: list[str], stdout: IO[bytes] | int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, env=self._env, process_group=0
        )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def _read_lines(self, pipe: IO[bytes], sink: LineSink) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip("\r\n")
                self._last_lines.append(line)
                sink(line)

    def _tail(self) -> str:
        if isinstance(self._output, Path):
            with self._output.open(encoding="utf-8", errors="replace") as log:
                return "".join(deque(log, maxlen=KEPT_LINES))
        return "\n".join(self._last_lines)
