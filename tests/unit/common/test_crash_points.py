"""Crash points: they kill on the spot, and only where they were asked to."""

import os
import subprocess
import sys

import pytest

from libs.common.crash_points import CRASH_EXIT_CODE

PROGRAM = "import atexit; from libs.common.crash_points import crash_point; atexit.register(print, 'cleanup'); "


def run(point: str) -> subprocess.CompletedProcess[bytes]:
    """Pass a point in a process in which `a.b` is chosen."""
    return subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}crash_point({point!r}); print('went on')"],
        env={**os.environ, "PUNCTUAL_CRASH_POINT": "a.b"},
        capture_output=True,
        check=False,
    )


def test_chosen_point_ends_the_process_without_cleanup() -> None:
    result = run("a.b")
    assert (result.returncode, result.stdout) == (CRASH_EXIT_CODE, b"")


@pytest.mark.parametrize("point", ["a", "a.b.c"])
def test_other_points_do_nothing(point: str) -> None:
    assert run(point).stdout.split() == [b"went", b"on", b"cleanup"]
