"""Audit events on their way: written with the change, then copied into the collection that lists read.

A store puts the event into the array `audit_outbox` of the very document it writes, by the same single-document write;
so an event is exactly as durable as its change, without a transaction. The relay copies what it finds in outboxes into
`audit_events` under the event's own id, and takes it out of the outbox afterwards:

    if we die before the copy, the next relay of any replica finds the outbox by its sparse index;
    if we die between copy and removal, the copy is repeated, its id is taken, and the removal is done then.

Relays of several replicas may meet; they do the same twice, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pymongo import IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from services.scheduler.adapters.audit_trail import mark_event_stored
from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.duplicate_keys import only_duplicates
from services.scheduler.usecases.audit import AuditEvent

OUTBOX = "audit_outbox"
OUTBOX_INDEX = IndexModel([(f"{OUTBOX}._id", 1)], name="audit_outbox", sparse=True)
"""Goes to every collection whose documents carry an outbox; small, since outboxes are empty but for moments."""

BATCH = 500
SWEEP_SECONDS = 30.0
"""How often a replica looks for what another one left. Nobody waits for it: a list relays first."""


class AuditOutbox:
    """The stores' side: adds events to writes."""

    def __init__(self) -> None:
        self._codec = Codec()
        self.has_news = False
        """Whether something was written since the relay looked last."""

    def fields(self, event: AuditEvent | None) -> Document:
        """Return what a new document carries for the event."""
        return {OUTBOX: [self._codec.encode(event)]} if event else {}

    def push(self, event: AuditEvent | None) -> Document:
        """Return what an update adds for the event, beside its other operators."""
        return {"$push": {OUTBOX: self._codec.encode(event)}} if event else {}

    def written(self, event: AuditEvent | None) -> None:
        """Say that a write with the event succeeded."""
        if event is not None:
            self.has_news = True
            mark_event_stored()


class AuditRelay:
    """Empties the outboxes into the audit; one duty on every replica."""

    def __init__(
        self,
        outbox: AuditOutbox,
        sources: Sequence[AsyncCollection[dict[str, Any]]],
        events: AsyncCollection[dict[str, Any]],
        clock: Clock,
        retention: timedelta,
    ) -> None:
        self._outbox = outbox
        self._sources = sources
        self._events = events
        self._clock = clock
        self._retention = retention
        self._next_sweep = clock.monotonic()

    async def run_once(self) -> int:
        """Relay if this replica wrote something, or if a sweep is due; called often, nearly always for nothing."""
        now = self._clock.monotonic()
        if not self._outbox.has_news and now < self._next_sweep:
            return 0
        self._outbox.has_news = False
        self._next_sweep = now + SWEEP_SECONDS
        return await self.relay()

    async def relay(self) -> int:
        """Copy what is in the outboxes now, of whichever replica; returns the number of events."""
        return sum([await self._empty(source) for source in self._sources])

    async def _empty(self, source: AsyncCollection[dict[str, Any]]) -> int:
        copied = 0
        while True:
            documents = [
                document
                async for document in source.find(
                    {f"{OUTBOX}._id": {"$exists": True}}, {OUTBOX: 1}, limit=BATCH, hint="audit_outbox"
                )
            ]
            if not documents:
                return copied
            events = [event for document in documents for event in document[OUTBOX]]
            await self._copy(events)
            crash_point("scheduler.audit_copied")
            await _take_out(source, [[event["_id"] for event in document[OUTBOX]] for document in documents])
            copied += len(events)
            if len(documents) < BATCH:
                return copied

    async def _copy(self, events: Sequence[Mapping[str, Any]]) -> None:
        kept = [{**event, "expire_time": event["event_time"] + self._retention} for event in events]
        try:
            await self._events.insert_many(kept, ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise


async def _take_out(source: AsyncCollection[dict[str, Any]], outboxes: Sequence[Sequence[str]]) -> None:
    """Take copied events out, given by outbox."""
    alone = [event_ids[0] for event_ids in outboxes if len(event_ids) == 1]
    if alone:
        # Nearly all, and this costs the database half as much. An outbox that grew meanwhile is left to the next relay.
        await source.update_many(
            {f"{OUTBOX}._id": {"$in": alone}, OUTBOX: {"$size": 1}}, {"$unset": {OUTBOX: ""}}, hint="audit_outbox"
        )
    together = [event_id for event_ids in outboxes if len(event_ids) > 1 for event_id in event_ids]
    if together:
        await source.update_many({f"{OUTBOX}._id": {"$in": together}}, _without(together), hint="audit_outbox")


def _without(event_ids: Sequence[str]) -> list[Document]:
    """Return the update that takes events out; an outbox that gets empty goes, or it would stay in the index."""
    rest = {"$filter": {"input": f"${OUTBOX}", "cond": {"$not": {"$in": ["$$this._id", list(event_ids)]}}}}
    kept: Document = {"$cond": [{"$gt": [{"$size": "$$rest"}, 0]}, "$$rest", "$$REMOVE"]}
    # Another relay may have removed the field meanwhile; a missing one has no size.
    return [
        {
            "$set": {
                OUTBOX: {
                    "$cond": [
                        {"$isArray": f"${OUTBOX}"},
                        {"$let": {"vars": {"rest": rest}, "in": kept}},
                        "$$REMOVE",
                    ]
                }
            }
        }
    ]
