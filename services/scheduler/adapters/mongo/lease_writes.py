"""Leases in MongoDB: grants, renewals and ends of executions, each a compare-and-set, many in few writes.

The fencing token grows with each grant and is part of every filter, so a write of a stale holder matches nothing
(promise P3). A batch is judged by its matched count: when all matched, all were applied; otherwise the batch is read
back once to learn which. That read also answers for a batch that was applied before and is only repeated.

Most executions end alike, so their ends share one update (see `values_by_id`).

The overlap slot is a unique index: at most one execution of a job can hold its job's id in `overlap_slot`. A grant of
an exclusive execution takes it in the same single-document write, so overlap needs no lock and no repair.
"""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.known_executions import KnownExecutions
from services.scheduler.adapters.mongo.values_by_id import replace_with_own
from services.scheduler.domain.begin import MAX_EARLY
from services.scheduler.domain.execution import Attempt, Execution, ExecutionState, Phase
from services.scheduler.usecases.ports.execution_writes import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite

KEPT_ATTEMPTS = 40
"""Attempts that an execution keeps; older ones are dropped."""

MAX_TOGETHER = 100
"""Ends in one write; with the largest answers that are kept in the record it is still well below 16 MB."""

SETTLE_GRACE = timedelta(seconds=5)
"""How long the process that ended an execution may take to settle it before the settler does."""

_DUPLICATE_KEY = 11000
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


class LeaseWrites(abc.ABC):
    """The lease half of the execution store."""

    def __init__(self, codec: Codec, retention: timedelta) -> None:
        self._codec = codec
        self._retention = retention
        self._known = KnownExecutions()

    @property
    @abc.abstractmethod
    def _executions(self) -> AsyncCollection[dict[str, Any]]: ...

    async def grant(self, lease: Lease, grants: Sequence[GrantWrite]) -> GrantResult:
        """Take READY (or lost) executions to RUNNING under new leases."""
        alike: dict[tuple[int, int], list[str]] = defaultdict(list)
        single: list[GrantWrite] = []
        for grant in grants:
            if grant.execution.exclusive or grant.lost_attempt is not None:
                single.append(grant)
            else:
                alike[grant.execution.fencing_token, grant.job_revision].append(grant.execution.execution_id)
        unsure: list[str] = []
        granted: set[str] = set()
        for (token, revision), ids in alike.items():
            result = await self._executions.update_many(
                {"_id": {"$in": ids}, **_ready_filter(token, lease.begin_time)},
                _grant_update(lease, revision),
            )
            (granted.update if result.modified_count == len(ids) else unsure.extend)(ids)
        overlapping = await self._grant_singly(lease, single, granted, unsure) if single else frozenset()
        written = granted.copy()
        if unsure:
            held = await self._held(lease, unsure)
            for grant in grants:
                execution_id = grant.execution.execution_id
                if execution_id in held and held[execution_id][0] == grant.execution.fencing_token + 1:
                    granted.add(execution_id)
                    # What an earlier copy of the request was granted began earlier, and is not as this one wrote it.
                    if held[execution_id][1] == lease.begin_time:
                        written.add(execution_id)
        self._known.remember(_granted(lease, grant) for grant in grants if grant.execution.execution_id in written)
        return GrantResult(frozenset(granted), overlapping)

    async def _held(self, lease: Lease, execution_ids: Sequence[str]) -> dict[str, tuple[int, datetime]]:
        """Return those of the executions that the lease's request holds, by this call or an earlier copy of it.

        With fencing token and begin: another replica may have granted them to the request under a later token.
        """
        held = {"_id": {"$in": execution_ids}, "state": ExecutionState.RUNNING, "begin_request_id": lease.request_id}
        cursor = self._executions.find(held, {"fencing_token": 1, "begin_time": 1})
        return {document["_id"]: (document["fencing_token"], document["begin_time"]) async for document in cursor}

    async def _grant_singly(
        self, lease: Lease, grants: Sequence[GrantWrite], granted: set[str], unsure: list[str]
    ) -> frozenset[str]:
        """Grant those that need a write of their own; returns those that met a taken overlap slot."""
        writes = [self._single_grant(lease, grant) for grant in grants]
        ids = [grant.execution.execution_id for grant in grants]
        try:
            result = await self._executions.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
            failures = error.details["writeErrors"]
            overlapping = frozenset(ids[failure["index"]] for failure in failures)
            unsure.extend(execution_id for execution_id in ids if execution_id not in overlapping)
            return overlapping
        (granted.update if result.matched_count == len(ids) else unsure.extend)(ids)
        return frozenset()

    def _single_grant(self, lease: Lease, grant: GrantWrite) -> UpdateOne:
        execution = grant.execution
        update = _grant_update(lease, grant.job_revision)
        if execution.exclusive:
            update["$set"]["overlap_slot"] = execution.job_id
        if grant.lost_attempt is None:
            matching = _ready_filter(execution.fencing_token, lease.begin_time)
        else:
            matching = {
                "state": ExecutionState.RUNNING,
                "fencing_token": execution.fencing_token,
                "wake_time": {"$lte": lease.begin_time},
            }
            update["$inc"]["loss_count"] = 1
            update["$push"] = self._push(grant.lost_attempt)
        return UpdateOne({"_id": execution.execution_id, **matching}, update)

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

    async def extend(self, executor_id: str, leases: Mapping[str, int], expire_time: datetime) -> Mapping[str, str]:
        """Renew leases; returns those that still hold, with the reason of a wanted cancellation or ''."""
        mine = {"state": ExecutionState.RUNNING, "executor_id": executor_id}
        by_token: dict[int, list[str]] = defaultdict(list)
        for execution_id, token in leases.items():
            by_token[token].append(execution_id)
        for token, ids in by_token.items():
            await self._executions.update_many(
                {"_id": {"$in": ids}, **mine, "fencing_token": token}, {"$set": {"wake_time": expire_time}}
            )
        # Write first, read second: what is still held now was renewed, and nobody else can take it until it expires.
        cursor = self._executions.find({"_id": {"$in": list(leases)}, **mine}, {"fencing_token": 1, "cancel_reason": 1})
        return {
            document["_id"]: document.get("cancel_reason", "")
            async for document in cursor
            if leases[document["_id"]] == document["fencing_token"]
        }

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


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether all that failed of a bulk write is that something exists already; all else is durable then."""
    # An unconfirmed majority is reported beside the duplicates, and means that nothing may be built upon it.
    failures = error.details["writeErrors"]
    return not error.details.get("writeConcernErrors") and all(f["code"] == _DUPLICATE_KEY for f in failures)


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


def _ready_filter(token: int, now: datetime) -> Document:
    return {
        "state": ExecutionState.READY,
        "fencing_token": token,
        "available_time": {"$lte": now + MAX_EARLY},
    }


def _grant_update(lease: Lease, job_revision: int) -> Document:
    return {
        "$set": {
            "state": ExecutionState.RUNNING,
            "phase": Phase.LEASED,
            "wake_time": lease.expire_time,
            "executor_id": lease.executor_id,
            "begin_request_id": lease.request_id,
            "begin_time": lease.begin_time,
            "delivery_path": lease.path,
            "job_revision": job_revision,
        },
        "$unset": {"queue_slot": "", "wait_reason": ""},
        "$inc": {"fencing_token": 1, "attempt_number": 1},
    }


def _granted(lease: Lease, grant: GrantWrite) -> Execution:
    """Return the execution as `_grant_update` leaves it, but for a lost attempt, with which it is not remembered."""
    execution = grant.execution
    return replace(
        execution,
        state=ExecutionState.RUNNING,
        phase=Phase.LEASED,
        wake_time=lease.expire_time,
        executor_id=lease.executor_id,
        begin_request_id=lease.request_id,
        begin_time=lease.begin_time,
        delivery_path=lease.path,
        job_revision=grant.job_revision,
        wait_reason="",
        fencing_token=execution.fencing_token + 1,
        attempt_number=execution.attempt_number + 1,
        attempts=execution.attempts if grant.lost_attempt is None else (grant.lost_attempt,),
    )
