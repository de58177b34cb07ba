"""Crash points: they kill on the spot, and only where they were asked to."""

import os
import subprocess
import sys

import pytest

from libs.common.crash_points import CRASH_EXIT_CODE, crash_point

PROGRAM = "import atexit; from libs.common.crash_points import crash_point; atexit.register(print, 'cleanup'); "


def test_chosen_point_ends_the_process_without_cleanup() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM + "crash_point('a.b'); print('went on')"],
        env={**os.environ, "PUNCTUAL_CRASH_POINT": "a.b"},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (CRASH_EXIT_CODE, b"")


def test_other_points_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    crash_point("a.b")
    monkeypatch.setenv("PUNCTUAL_CRASH_POINT", "a")
    crash_point("a.b")
