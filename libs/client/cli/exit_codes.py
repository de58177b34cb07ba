"""How the command ends, for scripts; docs/api.md lists these."""

from __future__ import annotations

import enum

from libs.common.errors import (
    NotFoundError,
    PermissionDeniedError,
    PunctualError,
    UnauthenticatedError,
    UnavailableError,
)


class ExitCode(enum.IntEnum):
    """What an exit code means."""

    OK = 0
    REFUSED = 1
    """The server refused the call, or some items of it; or the answer could not be written."""
    USAGE = 2
    """The command line or a file named there is wrong; nothing was called."""
    NOT_FOUND = 3
    UNAVAILABLE = 4
    """No answer in time; whether a change took effect is not known."""
    NOT_ALLOWED = 5
    """No credential, one that does not hold, or one that may not do this."""
    INTERRUPTED = 130


def exit_code_of(error: PunctualError) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case NotFoundError():
            return ExitCode.NOT_FOUND
        case UnavailableError():
            return ExitCode.UNAVAILABLE
        case UnauthenticatedError() | PermissionDeniedError():
            return ExitCode.NOT_ALLOWED
        case _:
            return ExitCode.REFUSED
