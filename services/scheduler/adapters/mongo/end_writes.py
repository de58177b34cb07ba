"""Ends and returns of executions in MongoDB, each a compare-and-set under its fencing token, many in few writes.

A batch is judged by its matched count: when all matched, all were applied; otherwise the batch is read back once to
learn which. That read also answers for a batch that was applied before and is only repeated.

Most executions end alike, so their ends share one update (see `values_by_id`).
"""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.known_executions import KnownExecutions
from services.scheduler.adapters.mongo.values_by_id import replace_with_own
from services.scheduler.domain.execution import Attempt, ExecutionState, Phase
from services.scheduler.usecases.ports.execution_writes import FinishWrite, WaitWrite

KEPT_ATTEMPTS = 40
"""Attempts that an execution keeps; older ones are dropped."""

MAX_TOGETHER = 100
"""Ends in one write; with the largest answers that are kept in the record it is still well below 16 MB."""

SETTLE_GRACE = timedelta(seconds=5)
"""How long the process that ended an execution may take to settle it before the settler does."""

_UNSET_BY_END = ("available_time", "wait_reason", "overlap_slot", "queue_slot", "begin_request_id")
_LIVE = frozenset({ExecutionState.READY, ExecutionState.RUNNING})


@dataclass(frozen=True, slots=True)
class _Result:
    """How to know from the record that a write, or an earlier copy of it, was applied."""

    token: int
    states: frozenset[ExecutionState]
    mark_field: str
    """A report leaves its token as the reported one; any other end happens once under the token that was read."""

    def stands_in(self, document: Document) -> bool:
        return document.get(self.mark_field) == self.token and document["state"] in self.states


@dataclass(frozen=True, slots=True)
class _Ending:
    """What ends have in common that share one write."""

    token: int
    expected: ExecutionState
    settle: bool
    attempted: bool
    started: bool
    lost_by: datetime | None
    """Takes effect only if the lease has run out by then: its holder may have renewed it since it was read."""

    def matching(self, ids: Sequence[str]) -> Document:
        matching: Document = {"_id": {"$in": ids}, "state": self.expected, "fencing_token": self.token}
        return matching if self.lost_by is None else {**matching, "wake_time": {"$lte": self.lost_by}}

    def pipeline(self, ids: Sequence[str], fields: Sequence[Document]) -> list[Document]:
        """Return the update that merges into each record the fields at its id's place."""
        merged: Document = {}
        if self.attempted:
            before: Document = {"$ifNull": ["$attempts", []]}
            merged["attempts"] = {"$slice": [{"$concatArrays": [before, "$$own.attempts"]}, -KEPT_ATTEMPTS]}
        if self.started:
            # The first attempt's start stays: the lag is measured from it.
            merged["start_time"] = {"$min": ["$start_time", "$$own.start_time"]}
        unset = _UNSET_BY_END if self.settle else (*_UNSET_BY_END, "phase", "wake_time")
        ended = {"$mergeObjects": ["$$ROOT", "$$own", merged]}
        return [replace_with_own(ids, fields, ended), {"$unset": list(unset)}]


class EndWrites(abc.ABC):
    """The part of the execution store that ends attempts."""

    def __init__(self, codec: Codec, retention: timedelta) -> None:
        self._codec = codec
        self._retention = retention
        self._known = KnownExecutions()

    @property
    @abc.abstractmethod
    def _executions(self) -> AsyncCollection[dict[str, Any]]: ...

    async def finish(self, writes: Sequence[FinishWrite]) -> frozenset[str]:
        """End executions; returns the ids that stand so now."""
        alike: dict[_Ending, list[FinishWrite]] = defaultdict(list)
        for write in writes:
            alike[_ending(write)].append(write)
        self._known.forget(write.execution_id for write in writes)
        matched = 0
        for ending, group in alike.items():
            for start in range(0, len(group), MAX_TOGETHER):
                together = group[start : start + MAX_TOGETHER]
                ids = [write.execution_id for write in together]
                fields = [self._end_fields(write) for write in together]
                result = await self._executions.update_many(ending.matching(ids), ending.pipeline(ids, fields))
                matched += result.matched_count
        return await self._applied(
            matched,
            {
                write.execution_id: _Result(
                    write.fencing_token,
                    frozenset({write.state}),
                    "reported_token" if write.is_report else "fencing_token",
                )
                for write in writes
            },
        )

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY; returns the ids for which it was applied, now or before."""
        self._known.forget(write.execution_id for write in writes)
        result = await self._executions.bulk_write(
            [
                UpdateOne(
                    {
                        "_id": write.execution_id,
                        "state": ExecutionState.RUNNING,
                        "fencing_token": write.fencing_token,
                    },
                    self._wait_update(write),
                )
                for write in writes
            ],
            ordered=False,
        )
        return await self._applied(
            result.matched_count,
            {write.execution_id: _Result(write.fencing_token, _LIVE, "reported_token") for write in writes},
        )

    async def _applied(self, matched: int, results: Mapping[str, _Result]) -> frozenset[str]:
        """Return the ids of a batch that stand so now; when all of it matched, without a look."""
        if matched == len(results):
            return frozenset(results)
        cursor = self._executions.find(
            {"_id": {"$in": list(results)}}, {"state": 1, "fencing_token": 1, "reported_token": 1}
        )
        return frozenset([document["_id"] async for document in cursor if results[document["_id"]].stands_in(document)])

    def _end_fields(self, write: FinishWrite) -> Document:
        fields: Document = {
            "state": write.state,
            "state_reason": write.reason,
            "end_time": write.end_time,
            "expire_time": write.end_time + self._retention,
            **self._result_fields(write),
        }
        if write.is_report:
            fields["reported_token"] = write.fencing_token
        if write.settle:
            fields["phase"] = Phase.SETTLING
            fields["wake_time"] = write.end_time + SETTLE_GRACE
        if write.attempt is not None:
            fields["attempts"] = [self._codec.encode(write.attempt)]
            if write.attempt.start_time is not None:
                fields["start_time"] = write.attempt.start_time
        return fields

    def _wait_update(self, write: WaitWrite) -> Document:
        update: Document = {
            "$set": {
                "state": ExecutionState.READY,
                "phase": Phase.WAITING,
                "wake_time": write.available_time,
                "available_time": write.available_time,
                "wait_reason": write.reason,
                "reported_token": write.fencing_token,
            },
            "$unset": {"begin_request_id": ""},
        }
        update["$set"] |= self._result_fields(write)
        if write.wait_host:
            update["$set"]["wait_host"] = write.wait_host
        if write.attempt is None:
            # The attempt number was taken by the grant; what was not tried gives it back.
            update["$inc"] = {"attempt_number": -1, "deferral_count": 0 if write.released else 1}
        else:
            update["$push"] = self._push(write.attempt)
            if write.attempt.start_time is not None:
                update["$min"] = {"start_time": write.attempt.start_time}
        return update

    def _result_fields(self, write: FinishWrite | WaitWrite) -> Document:
        fields: Document = {}
        if write.response is not None:
            fields["response"] = self._codec.encode(write.response)
        if write.lag_micros is not None:
            fields["lag_micros"] = write.lag_micros
        if write.trace_id:
            fields["trace_id"] = write.trace_id
        return fields

    def _push(self, attempt: Attempt) -> Document:
        return {"attempts": {"$each": [self._codec.encode(attempt)], "$slice": -KEPT_ATTEMPTS}}


def _ending(write: FinishWrite) -> _Ending:
    attempt = write.attempt
    return _Ending(
        write.fencing_token,
        write.expected,
        settle=write.settle,
        attempted=attempt is not None,
        started=attempt is not None and attempt.start_time is not None,
        lost_by=write.end_time if write.lease_lost else None,
    )
