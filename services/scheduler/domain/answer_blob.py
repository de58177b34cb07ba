"""When an answer that is kept apart from its execution may go: the one rule behind the sweep of blobs.

A blob is needed while its execution refers to it, and while a report under its lease may still do so. An execution that
left its lease never comes back to it, for tokens only grow, so what this rule gives up stays given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.scheduler.domain.execution import Execution, ExecutionState

CHECK_INTERVAL = timedelta(hours=1)
"""How long after its upload began, or after the last look, a blob is looked at; far longer than an upload can take."""

EXPIRY_GRACE = timedelta(minutes=2)
"""How long after its execution expires a blob is looked at: the database removes what expired once a minute."""

MAX_BLOB_BYTES = 50_000_000
"""The largest stored answer: what a job may ask to keep. Compression is used only where it makes an answer smaller."""


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """What is known of a blob beside its bytes. It stands before the first byte and goes after the last."""

    blob_id: str
    execution_id: str
    fencing_token: int
    check_time: datetime
    """When the sweep looks whether it is needed."""


def next_check(record: BlobRecord, execution: Execution | None, now: datetime) -> datetime | None:
    """Return when to look at a blob again, or None when nothing needs it any more; an execution of None is gone."""
    if execution is None:
        return None
    if execution.response is not None and execution.response.blob_id == record.blob_id:
        if execution.expire_time is None:
            return now + CHECK_INTERVAL
        # An execution that outlives its expiry, for the database is busy, is asked about again and again, not at once.
        return max(execution.expire_time + EXPIRY_GRACE, now + EXPIRY_GRACE)
    is_leased = execution.state is ExecutionState.RUNNING and execution.fencing_token == record.fencing_token
    return now + CHECK_INTERVAL if is_leased else None
