"""The collections as Beanie knows them: their names, their indexes, and the fields that queries ask for.

Documents carry more fields than these (see `codec`); Beanie keeps them as they are. A document never leaves this
package: stores hand out domain values. Writer of all collections: the scheduler.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pydantic import ConfigDict
from pymongo import ASCENDING, DESCENDING, IndexModel


class StoredDocument(Document):
    """A document with a text id that keeps the fields it does not name."""

    model_config = ConfigDict(extra="allow")

    id: str  # type: ignore[assignment] # Beanie's own default is an ObjectId


class JobDocument(StoredDocument):
    """A job: its definition as one value, and beside it copies of what queries ask for."""

    org_id: str
    project_id: str
    state: str
    next_fire_time: datetime | None = None
    next_due_time: datetime | None = None
    definition: dict[str, Any]

    class Settings:
        """Where jobs are stored and how they are found."""

        name = "jobs"
        indexes: ClassVar[list[IndexModel]] = [
            # The tick: due time first, so that a poll with nothing due costs one seek for any set of partitions.
            IndexModel(
                [("next_due_time", ASCENDING), ("partition", ASCENDING)],
                name="tick",
                partialFilterExpression={"state": "ACTIVE"},
            ),
            IndexModel([("org_id", ASCENDING), ("_id", DESCENDING)], name="org_newest"),
            IndexModel(
                [
                    ("org_id", ASCENDING),
                    ("project_id", ASCENDING),
                    ("state", ASCENDING),
                    ("next_fire_time", ASCENDING),
                ],
                name="org_project_state",
            ),
            IndexModel([("fingerprint", ASCENDING), ("create_time", DESCENDING)], name="fingerprint"),
            IndexModel(
                [("org_id", ASCENDING), ("idempotency_key", ASCENDING)],
                name="idempotency_key",
                unique=True,
                partialFilterExpression={"idempotency_key": {"$gt": ""}},
            ),
            IndexModel([("purge_time", ASCENDING)], name="purge", expireAfterSeconds=0, sparse=True),
        ]


class ExecutionDocument(StoredDocument):
    """An execution. `overlap_slot` and `queue_slot` hold the job's id in at most one execution of a job each."""

    org_id: str
    job_id: str
    state: str
    fire_time: datetime

    class Settings:
        """Where executions are stored and how they are found."""

        name = "executions"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("job_id", ASCENDING), ("fire_time", DESCENDING)], name="job_latest"),
            IndexModel([("org_id", ASCENDING), ("fire_time", DESCENDING)], name="org_latest"),
            IndexModel([("org_id", ASCENDING), ("state", ASCENDING), ("fire_time", DESCENDING)], name="org_state"),
            # Small: only what is not final. Serves retries, the poll path and the settler, each by its phase.
            IndexModel(
                [("phase", ASCENDING), ("wake_time", ASCENDING), ("partition", ASCENDING)],
                name="wake",
                partialFilterExpression={"phase": {"$exists": True}},
            ),
            IndexModel([("overlap_slot", ASCENDING)], name="overlap_slot", unique=True, sparse=True),
            IndexModel([("queue_slot", ASCENDING)], name="queue_slot", unique=True, sparse=True),
            IndexModel([("expire_time", ASCENDING)], name="expire", expireAfterSeconds=0, sparse=True),
        ]


class PartitionTableDocument(StoredDocument):
    """The one record of who looks after which partition."""

    version: int
    leases: dict[str, datetime]
    holders: list[str]

    class Settings:
        """Where the table is stored."""

        name = "partition_table"


DOCUMENTS: tuple[type[StoredDocument], ...] = (JobDocument, ExecutionDocument, PartitionTableDocument)
