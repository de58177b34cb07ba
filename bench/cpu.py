"""CPU time and memory of processes, as the kernel counts them (Linux /proc)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used up to an instant."""

    cpu_seconds: float
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Return a process's user and system time so far, threads included, and its resident memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)


def resident_of(pids: Mapping[str, int]) -> dict[str, int]:
    """Return the resident bytes of named processes."""
    return {name: usage_of(pid).resident_bytes for name, pid in pids.items()}


class CpuMeter:
    """Measures what named processes use between its start and `stop`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._start = {name: usage_of(pid).cpu_seconds for name, pid in self._pids.items()}
        self.seconds: dict[str, float] = {}
        """CPU seconds of each process; set by `stop`."""

    def stop(self) -> None:
        """Take the second reading."""
        self.seconds = {name: usage_of(pid).cpu_seconds - self._start[name] for name, pid in self._pids.items()}
