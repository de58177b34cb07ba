"""Opens the database the way the promises need it, and says in our words when it is away.

Writes are acknowledged by a majority and journaled (promise P9). Every operation ends within a time limit, and
retryable ones are repeated inside it by the driver, so that a step-down looks like a slow answer. What the driver
gives up on surfaces as UNAVAILABLE: every caller of ours may repeat its call, since all writes are compare-and-set.
"""

from __future__ import annotations

import re
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)
from pymongo.monitoring import CommandListener

from libs.common.errors import PunctualError, UnavailableError
from services.scheduler.adapters.mongo.condition_waits import mend_condition_waits

OPERATION_TIMEOUT_MILLIS = 8000
"""How long one operation may take, its repetitions and the choice of a server included."""

_SHUTDOWN_OR_STEP_DOWN = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436, 50, 64, 262})

MongoClient = AsyncMongoClient[dict[str, Any]]


def open_client(uri: str, *, max_pool_size: int = 100, listener: CommandListener | None = None) -> MongoClient:
    """Return a client, whose commands the listener hears of; it connects on first use."""
    mend_condition_waits()
    return AsyncMongoClient(
        uri,
        tz_aware=True,
        w="majority",
        journal=True,
        # Whatever the address says: a secondary may not know yet that a job was paused.
        readPreference="primary",
        retryWrites=True,
        retryReads=True,
        timeoutMS=OPERATION_TIMEOUT_MILLIS,
        serverSelectionTimeoutMS=OPERATION_TIMEOUT_MILLIS,
        connectTimeoutMS=2000,
        maxPoolSize=max_pool_size,
        appname="punctual-scheduler",
        event_listeners=[] if listener is None else [listener],
    )


def translate_error(error: Exception) -> PunctualError | None:
    """Return UNAVAILABLE for what a repetition may mend, None for what is not the database's state."""
    if not isinstance(error, PyMongoError):
        return None
    passing = isinstance(
        error, ConnectionFailure | NetworkTimeout | ExecutionTimeout | WTimeoutError | WriteConcernError
    )
    if isinstance(error, OperationFailure) and error.code in _SHUTDOWN_OR_STEP_DOWN:
        passing = True
    if isinstance(error, BulkWriteError) and error.details.get("writeConcernErrors"):
        passing = True
    if not passing and not error.timeout and not error.has_error_label("RetryableWriteError"):
        return None
    return UnavailableError(
        "DATABASE_UNAVAILABLE", "the database has no primary or did not answer in time", retry_after_seconds=1
    )


def redact_uri(uri: str) -> str:
    """Return a connection string without its credentials, for logs."""
    return re.sub(r"//[^@/]*@", "//***@", uri)
