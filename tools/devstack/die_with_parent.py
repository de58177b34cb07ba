"""Becomes a command that dies with the process that started it.

Run as `python -I -S die_with_parent.py PARENT_PID COMMAND...`. On Linux it asks the kernel for SIGKILL at the parent's
death and then replaces itself by the command, which inherits the request. A wrapper rather than a `preexec_fn`: code
between fork and exec can deadlock in a parent that has threads (gRPC, log readers). The kernel watches the *thread*
that started the child, so children are started from the main thread. Elsewhere than on Linux it only starts the
command, and a parent that is killed outright leaves its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Bind this process to its parent and become the command; never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the request: then no signal will come.
        if os.getppid() != parent:
            sys.exit(f"parent {parent} is gone; not starting {command[0]}")
    # Python ignores SIGPIPE, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - replacing this process is the purpose
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
