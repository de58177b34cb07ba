"""Leases in MongoDB: grants and renewals, each a compare-and-set, many in few writes.

The fencing token grows with each grant and is part of every filter, so a write of a stale holder matches nothing
(promise P3).

The overlap slot is a unique index: at most one execution of a job can hold its job's id in `overlap_slot`. A grant of
an exclusive execution takes it in the same single-document write, so overlap needs no lock and no repair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates
from services.scheduler.adapters.mongo.end_writes import EndWrites
from services.scheduler.domain.begin import MAX_EARLY
from services.scheduler.domain.execution import Execution, ExecutionState, Phase
from services.scheduler.usecases.ports.execution_writes import GrantResult, GrantWrite, Lease


class LeaseWrites(EndWrites):
    """The part of the execution store that gives and renews leases."""

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
