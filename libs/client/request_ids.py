"""The id under which a call is found in the scheduler's logs and audit.

The client makes it and sends it as `x-request-id`, so that it is known even when no answer comes. All tries of one
call share it.
"""

from __future__ import annotations

from libs.common.errors import PunctualError
from libs.common.ids import new_id

_METADATA = "requestId"


def new_request_id() -> str:
    """Return an id for one call."""
    return new_id()


def mark(error: PunctualError, request_id: str) -> None:
    """Note on an error which call it ended."""
    error.metadata[_METADATA] = request_id


def request_id_of(error: PunctualError) -> str:
    """Return the id of the call that ended with this error; empty when no call was made."""
    return error.metadata.get(_METADATA, "")
