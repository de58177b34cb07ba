"""Reads back every change that MongoDB has committed to jobs and executions, and finds those that must never happen.

The change stream is read after the fact, from the instant before the first write on: nothing is lost however often the
primary changed, and what was rolled back does not appear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bson import Timestamp
from pymongo.asynchronous.database import AsyncDatabase

Database = AsyncDatabase[dict[str, Any]]
FINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "RATE_LIMITED", "UNKNOWN", "CANCELLED", "SKIPPED"}
GROWING = {"executions": "fencing_token", "jobs": "next_fire_time"}
_QUIET_READS = 2


async def mark(database: Database) -> Timestamp:
    """Return the database's present logical time, from which `read_history` can read."""
    answer = await database.client.admin.command("ping")
    operation_time = answer["operationTime"]
    assert isinstance(operation_time, Timestamp)
    return operation_time


@dataclass
class History:
    """What the changes since a mark show."""

    changes: int = 0
    left_final: list[str] = field(default_factory=list)
    """Executions that changed their state after they had reached a final one."""
    shrunk: list[str] = field(default_factory=list)
    """Fencing tokens and next fire times that went back."""
    _last: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def note(self, collection: str, key: str, values: dict[str, Any]) -> None:
        """Take the fields that a change has set."""
        self.changes += 1
        if collection == "executions" and "state" in values:
            before = self._last.get((collection, key, "state"))
            if before in FINAL and values["state"] != before:
                self.left_final.append(f"{key} {before} -> {values['state']}")
            self._last[collection, key, "state"] = values["state"]
        name = GROWING[collection]
        value = values.get(name)
        if value is not None:
            before = self._last.get((collection, key, name))
            if before is not None and value < before:
                self.shrunk.append(f"{collection} {key} {name} {before} -> {value}")
            self._last[collection, key, name] = value


async def read_history(database: Database, since: Timestamp) -> History:
    """Read every change of jobs and executions since the mark."""
    history = History()
    pipeline = [{"$match": {"ns.coll": {"$in": list(GROWING)}, "operationType": {"$in": ["insert", "update"]}}}]
    quiet = 0
    async with await database.watch(
        pipeline, start_at_operation_time=since, max_await_time_ms=200, batch_size=1000
    ) as stream:
        while quiet < _QUIET_READS:
            change = await stream.try_next()
            if change is None:
                quiet += 1
                continue
            quiet = 0
            values = change.get("fullDocument") or change["updateDescription"]["updatedFields"]
            history.note(change["ns"]["coll"], change["documentKey"]["_id"], values)
    return history
