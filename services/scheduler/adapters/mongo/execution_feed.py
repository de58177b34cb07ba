"""Changes of executions as MongoDB tells them: one change stream a watch.

A change is a new record, or one with another state or another lease; renewals and bookkeeping are none. The stream
carries the record as it is when the change is read. A change that the next one has overtaken by then is left out, so
that what is shown is always true, each state at most once, and the final one always. Callers that lose the connection
continue after the last change by its token, as long as the database's oplog reaches back to it.

Each open stream keeps a connection busy, so watches have a client of their own and cannot starve the other calls.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from libs.common.errors import InvalidArgumentError, OutOfRangeError
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.connection import translate_error
from services.scheduler.adapters.mongo.job_filters import within
from services.scheduler.domain.execution import Execution
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.execution_feed import WatchFilter

MAX_AWAIT_MILLIS = 500
"""How long one look waits for a change: bounds how late a watch notices that it has to end."""

_TOKEN = re.compile(r"[0-9A-Fa-f]{2,2048}")
# ChangeStreamFatalError, ChangeStreamHistoryLost: the oplog no longer reaches back to the token.
_HISTORY_LOST = frozenset({280, 286})
_MARKS = ("state", "fencing_token")

Change = Mapping[str, Any]


class MongoExecutionFeed:
    """Implements `ExecutionFeed`."""

    def __init__(self, executions: AsyncCollection[dict[str, Any]]) -> None:
        self._executions = executions
        self._codec = Codec()

    @asynccontextmanager
    async def open(self, scope: OrgScope, where: WatchFilter, resume_token: str) -> AsyncIterator[MongoChanges]:
        """Watch from now on, or from where a token says."""
        if resume_token and not _TOKEN.fullmatch(resume_token):
            raise _bad_token()
        try:
            stream = await self._executions.watch(
                _pipeline(scope, where),
                full_document="updateLookup",
                max_await_time_ms=MAX_AWAIT_MILLIS,
                resume_after={"_data": resume_token} if resume_token else None,
            )
        except OperationFailure as error:
            raise _translated(error, resumes=bool(resume_token)) from error
        async with stream:
            yield MongoChanges(stream, self._codec, where)


class MongoChanges:
    """Implements `ExecutionChanges`."""

    def __init__(self, stream: AsyncChangeStream[dict[str, Any]], codec: Codec, where: WatchFilter) -> None:
        self._stream = stream
        self._codec = codec
        self._where = where

    @property
    def resume_token(self) -> str:
        """Continues after what was returned last."""
        token = self._stream.resume_token
        return str(token["_data"]) if token else ""

    async def next(self) -> Execution | None:
        """Return the next changed execution, or None after a moment without a change."""
        try:
            change = await self._stream.try_next()
        except OperationFailure as error:
            raise _translated(error, resumes=False) from error
        return self._shown(change) if change else None

    def _shown(self, change: Change) -> Execution | None:
        document = change.get("fullDocument")
        if not document:
            return None
        updated = change.get("updateDescription", {}).get("updatedFields", {})
        if any(mark in updated and updated[mark] != document.get(mark) for mark in _MARKS):
            return None
        execution = self._codec.decode(document, Execution)
        return None if self._where.states and execution.state not in self._where.states else execution


def _pipeline(scope: OrgScope, where: WatchFilter) -> list[Document]:
    # Told from the change alone, before the database looks the record up.
    moved: Document = {
        "$or": [
            {"operationType": "insert"},
            {
                "operationType": "update",
                "$or": [{f"updateDescription.updatedFields.{m}": {"$exists": 1}} for m in _MARKS],
            },
        ]
    }
    if where.job_id:
        # Ids of executions are their job's id, a hyphen, and more; the character after a hyphen is the full stop.
        moved["documentKey._id"] = {"$gte": f"{where.job_id}-", "$lt": f"{where.job_id}."}
    owned = {f"fullDocument.{field}": value for field, value in within(scope).items()}
    clauses: list[Document] = [owned]
    if where.project_id:
        clauses.append({"fullDocument.project_id": where.project_id})
    if where.states:
        clauses.append({"fullDocument.state": {"$in": sorted(where.states)}})
    answers = ("fullDocument.response.body", "fullDocument.response.head", "updateDescription.updatedFields.response")
    return [{"$match": moved}, {"$match": {"$and": clauses}}, {"$project": dict.fromkeys(answers, 0)}]


def _translated(error: OperationFailure, *, resumes: bool) -> Exception:
    """Return our error for a stream that cannot go on; what is passing stays the driver's (see `connection`)."""
    if error.code in _HISTORY_LOST or error.has_error_label("NonResumableChangeStreamError"):
        return OutOfRangeError(
            "RESUME_TOKEN_EXPIRED", "the changes after this token are no longer known: list, then watch from now on"
        )
    # What else the database dislikes about a stream that it opens without a token is the token's fault.
    return _bad_token() if resumes and translate_error(error) is None else error


def _bad_token() -> InvalidArgumentError:
    return InvalidArgumentError.of("resume_token", "INVALID_RESUME_TOKEN", "is not a token of this service")
