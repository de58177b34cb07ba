"""What a call that got no whole answer is reported as: each way of failing, and how sure it is that nothing was sent.

Before a connection stands nothing has left, whatever went wrong. From then on the target may have seen the request,
also when a pooled connection turns out to be closed: it may have died while the bytes were on their way. After a
redirect an address has seen it for certain, so that whatever may be tried again counts as sent. Messages are ours, not
the library's, which would name hosts and addresses.
"""

from __future__ import annotations

import os

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientSSLError,
    InvalidURL,
)
from aiohttp.http import HttpProcessingError

from services.executor.adapters.http.exchange import Phase
from services.executor.adapters.http.guarded_connector import BlockedAddressError
from services.executor.domain.report import CallResult, Result

CALL_ERRORS = (ClientError, HttpProcessingError, OSError)
"""What a call may raise; its own deadline's TimeoutError is among the last."""

_NEVER_TRIED_AGAIN = frozenset({"BAD_URL", "BLOCKED_ADDRESS"})

_TIMEOUTS = {
    Phase.CONNECTING: ("CONNECT_TIMED_OUT", "no connection stood in time"),
    Phase.SENT: ("FIRST_BYTE_TIMED_OUT", "no answer began in time"),
    Phase.ANSWERING: ("TOTAL_TIMED_OUT", "the answer did not end in time"),
}


def failed_call(error: Exception, phase: Phase, redirects: int) -> CallResult:
    """Return the result of a call that raised one of `CALL_ERRORS` in that phase."""
    unsent = phase is Phase.CONNECTING
    reason, message = _unsent(error) if unsent else _unanswered(error)
    sent = not unsent or (redirects > 0 and reason not in _NEVER_TRIED_AGAIN)
    result = Result.NO_ANSWER if sent else Result.NOT_SENT
    return CallResult(result, error_reason=reason, error_message=message, redirect_count=redirects)


def timed_out_call(phase: Phase, redirects: int) -> CallResult:
    """Return the result of a call that ran out of time in that phase."""
    reason, message = _TIMEOUTS[phase]
    unsent = phase is Phase.CONNECTING and not redirects
    result = Result.CONNECT_TIMED_OUT if unsent else Result.TIMED_OUT
    return CallResult(result, error_reason=reason, error_message=message, redirect_count=redirects)


def _unsent(error: Exception) -> tuple[str, str]:
    match error:
        case ClientConnectorCertificateError() | ClientSSLError():
            return "TLS_FAILED", "no secure connection could be made"
        case ClientConnectorError() if isinstance(error.os_error, BlockedAddressError):
            return "BLOCKED_ADDRESS", "the target's address is not allowed"
        case ClientConnectorDNSError():
            return "DNS_FAILED", "the target's name could not be resolved"
        case InvalidURL():
            return "BAD_URL", "the target's address cannot be read"
        case OSError(errno=int(number)):
            return "CONNECT_FAILED", f"no connection could be made: {os.strerror(number)}"
        case _:
            return "CONNECT_FAILED", "no connection could be made"


def _unanswered(error: Exception) -> tuple[str, str]:
    match error:
        case HttpProcessingError():
            return "BAD_ANSWER", "the answer was not HTTP, or its head was too large"
        case ClientPayloadError():
            return "ANSWER_BROKEN_OFF", "the answer broke off before its end"
        case _:
            return "CONNECTION_LOST", "the connection was lost before the answer came"
