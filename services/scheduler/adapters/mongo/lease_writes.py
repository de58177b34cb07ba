"""Leases in MongoDB: grants, renewals and ends of executions, each a compare-and-set, many in few bulk writes.

The fencing token grows with each grant and is part of every filter, so a write of a stale holder matches nothing
(promise P3). A batch is judged by its matched count: when all matched, all were applied; otherwise the batch is read
back once to learn which. That read also answers for a batch that was applied before and is only repeated.

The overlap slot is a unique index: at most one execution of a job can hold its job's id in `overlap_slot`. A grant of
an exclusive execution takes it in the same single-document write, so overlap needs no lock and no repair.
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
from pymongo.errors import BulkWriteError

from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.domain.begin import MAX_EARLY
from services.scheduler.domain.execution import Attempt, ExecutionState, Phase
from services.scheduler.usecases.ports import FinishWrite, GrantResult, GrantWrite, Lease, WaitWrite

KEPT_ATTEMPTS = 40
"""Attempts that an execution keeps; older ones are dropped."""

SETTLE_GRACE = timedelta(seconds=5)
"""How long the process that ended an execution may take to settle it before the settler does."""

_DUPLICATE_KEY = 11000
_LIVE = frozenset({ExecutionState.READY, ExecutionState.RUNNING})


@dataclass(frozen=True, slots=True)
class _Change:
    """One compare-and-set, and how to know from the record that it, or an earlier copy of it, was applied."""

    execution_id: str
    token: int
    expected: ExecutionState
    update: Document
    results: frozenset[ExecutionState]
    mark_field: str
    """A report leaves its token as the reported one; any other end happens once under the token that was read."""
    lost_by: datetime | None = None
    """Takes effect only if the lease has run out by then: its holder may have renewed it since it was read."""

    def matching(self) -> Document:
        matching: Document = {"_id": self.execution_id, "state": self.expected, "fencing_token": self.token}
        return matching if self.lost_by is None else {**matching, "wake_time": {"$lte": self.lost_by}}

    def stands_in(self, document: Document) -> bool:
        return document.get(self.mark_field) == self.token and document["state"] in self.results


class LeaseWrites(abc.ABC):
    """The lease half of the execution store."""

    def __init__(self, codec: Codec, retention: timedelta) -> None:
        self._codec = codec
        self._retention = retention

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
        if unsure:
            held = {"_id": {"$in": unsure}, "state": ExecutionState.RUNNING, "begin_request_id": lease.request_id}
            granted.update([document["_id"] async for document in self._executions.find(held, {"_id": 1})])
        return GrantResult(frozenset(granted), overlapping)

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
        return await self._apply(
            [
                _Change(
                    write.execution_id,
                    write.fencing_token,
                    write.expected,
                    self._finish_update(write),
                    results=frozenset({write.state}),
                    mark_field="reported_token" if write.is_report else "fencing_token",
                    lost_by=write.end_time if write.lease_lost else None,
                )
                for write in writes
            ]
        )

    async def wait(self, writes: Sequence[WaitWrite]) -> frozenset[str]:
        """Put executions back to READY; returns the ids for which it was applied, now or before."""
        return await self._apply(
            [
                _Change(
                    write.execution_id,
                    write.fencing_token,
                    ExecutionState.RUNNING,
                    self._wait_update(write),
                    results=_LIVE,
                    mark_field="reported_token",
                )
                for write in writes
            ]
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

    async def _apply(self, changes: Sequence[_Change]) -> frozenset[str]:
        """Apply changes by compare-and-set on state and token; returns the ids that stand so now."""
        result = await self._executions.bulk_write(
            [UpdateOne(change.matching(), change.update) for change in changes],
            ordered=False,
        )
        by_id = {change.execution_id: change for change in changes}
        if result.matched_count == len(by_id):
            return frozenset(by_id)
        cursor = self._executions.find(
            {"_id": {"$in": list(by_id)}}, {"state": 1, "fencing_token": 1, "reported_token": 1}
        )
        return frozenset([document["_id"] async for document in cursor if by_id[document["_id"]].stands_in(document)])

    def _finish_update(self, write: FinishWrite) -> Document:
        fields: Document = {
            "state": write.state,
            "state_reason": write.reason,
            "end_time": write.end_time,
            "expire_time": write.end_time + self._retention,
        }
        if write.is_report:
            fields["reported_token"] = write.fencing_token
        unset = ["available_time", "wait_reason", "overlap_slot", "queue_slot", "begin_request_id"]
        if write.settle:
            fields["phase"] = Phase.SETTLING
            fields["wake_time"] = write.end_time + SETTLE_GRACE
        else:
            unset += ["phase", "wake_time"]
        update: Document = {"$set": fields, "$unset": dict.fromkeys(unset, "")}
        self._add_result(update, write)
        return update

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
        if write.wait_host:
            update["$set"]["wait_host"] = write.wait_host
        if write.attempt is None:
            # The attempt number was taken by the grant; what was not tried gives it back.
            update["$inc"] = {"attempt_number": -1, "deferral_count": 0 if write.released else 1}
        self._add_result(update, write)
        return update

    def _add_result(self, update: Document, write: FinishWrite | WaitWrite) -> None:
        if write.attempt is not None:
            update["$push"] = self._push(write.attempt)
            if write.attempt.start_time is not None:
                # The first attempt's start stays: the lag is measured from it.
                update["$min"] = {"start_time": write.attempt.start_time}
        if write.response is not None:
            update["$set"]["response"] = self._codec.encode(write.response)
        if write.lag_micros is not None:
            update["$set"]["lag_micros"] = write.lag_micros
        if write.trace_id:
            update["$set"]["trace_id"] = write.trace_id

    def _push(self, attempt: Attempt) -> Document:
        return {"attempts": {"$each": [self._codec.encode(attempt)], "$slice": -KEPT_ATTEMPTS}}


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether all that failed of a bulk write is that something exists already; all else is durable then."""
    # An unconfirmed majority is reported beside the duplicates, and means that nothing may be built upon it.
    failures = error.details["writeErrors"]
    return not error.details.get("writeConcernErrors") and all(f["code"] == _DUPLICATE_KEY for f in failures)


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
