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

from services.scheduler.adapters.mongo.audit_outbox import OUTBOX_INDEX


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
            # The tick: due time first, so that a poll with nothing due costs one seek for any set of partitions; the
            # org last, so that a look past its backlog reads keys only.
            IndexModel(
                [("next_due_time", ASCENDING), ("partition", ASCENDING), ("org_id", ASCENDING)],
                name="tick",
                partialFilterExpression={"state": "ACTIVE"},
            ),
            # Lists, each sorted by id (see `job_filters`).
            IndexModel([("org_id", ASCENDING), ("state", ASCENDING), ("_id", DESCENDING)], name="org_state"),
            IndexModel(
                [("org_id", ASCENDING), ("project_id", ASCENDING), ("state", ASCENDING), ("_id", DESCENDING)],
                name="org_project",
            ),
            IndexModel([("org_id", ASCENDING), ("labels", ASCENDING), ("_id", DESCENDING)], name="org_label"),
            IndexModel([("org_id", ASCENDING), ("target_host", ASCENDING), ("_id", DESCENDING)], name="org_host"),
            IndexModel([("org_id", ASCENDING), ("name", ASCENDING)], name="org_name"),
            IndexModel([("org_id", ASCENDING), ("next_fire_time", ASCENDING)], name="org_next_fire"),
            # What makes a second submission a duplicate (see `Job.duplicate_until`).
            IndexModel([("fingerprint_slot", ASCENDING)], name="fingerprint_slot", unique=True, sparse=True),
            IndexModel(
                [("org_id", ASCENDING), ("idempotency_key", ASCENDING)],
                name="idempotency_key",
                unique=True,
                partialFilterExpression={"idempotency_key": {"$gt": ""}},
            ),
            IndexModel([("purge_time", ASCENDING)], name="purge", expireAfterSeconds=0, sparse=True),
            # Only jobs with secrets: what a rotation of keys has left to do.
            IndexModel([("secret_key_ids", ASCENDING)], name="secret_key_ids", sparse=True),
            OUTBOX_INDEX,
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
            # Lists end with the id: without it in the index, the pages of equal fire times would be sorted in memory.
            IndexModel([("job_id", ASCENDING), ("fire_time", DESCENDING), ("_id", DESCENDING)], name="job_fire"),
            IndexModel([("org_id", ASCENDING), ("fire_time", DESCENDING), ("_id", DESCENDING)], name="org_fire"),
            IndexModel(
                [("org_id", ASCENDING), ("state", ASCENDING), ("fire_time", DESCENDING), ("_id", DESCENDING)],
                name="org_state_fire",
            ),
            # Only with tracing on.
            IndexModel([("trace_id", ASCENDING)], name="trace", sparse=True),
            # Small, too: what of a job is not final, among years of what is.
            IndexModel([("job_id", ASCENDING)], name="live", partialFilterExpression={"phase": {"$exists": True}}),
            # Small: only what is not final. Serves retries, the poll path and the settler, each by its phase.
            IndexModel(
                [("phase", ASCENDING), ("wake_time", ASCENDING), ("partition", ASCENDING), ("org_id", ASCENDING)],
                name="wake",
                partialFilterExpression={"phase": {"$exists": True}},
            ),
            # Only callbacks, by the job that they tell of.
            IndexModel(
                [("callback.job_id", ASCENDING), ("fire_time", DESCENDING), ("_id", DESCENDING)],
                name="callback_job",
                partialFilterExpression={"callback.job_id": {"$exists": True}},
            ),
            IndexModel([("overlap_slot", ASCENDING)], name="overlap_slot", unique=True, sparse=True),
            IndexModel([("queue_slot", ASCENDING)], name="queue_slot", unique=True, sparse=True),
            IndexModel([("expire_time", ASCENDING)], name="expire", expireAfterSeconds=0, sparse=True),
            OUTBOX_INDEX,
        ]


class BlobDocument(StoredDocument):
    """That an upload of an answer began, wherever its bytes are; from before the first byte until after the last."""

    execution_id: str
    fencing_token: int
    check_time: datetime

    class Settings:
        """Where the records are stored; the sweep asks for those whose check has come due."""

        name = "blobs"
        indexes: ClassVar[list[IndexModel]] = [IndexModel([("check_time", ASCENDING)], name="check")]


class PartitionTableDocument(StoredDocument):
    """The one record of who looks after which partition."""

    version: int
    leases: dict[str, datetime]
    holders: list[str]

    class Settings:
        """Where the table is stored."""

        name = "partition_table"


class ApiKeyDocument(StoredDocument):
    """An API key, with the hash of its secret."""

    org_id: str
    name: str
    secret_hash: bytes
    scopes: list[str]
    project_ids: list[str] | None
    create_time: datetime
    creator: str
    expire_time: datetime | None = None
    revoke_time: datetime | None = None

    class Settings:
        """Where keys are stored and how they are listed; authentication finds them by id."""

        name = "api_keys"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("org_id", ASCENDING), ("_id", DESCENDING)], name="org_newest"),
            OUTBOX_INDEX,
        ]


class SigningSecretsDocument(StoredDocument):
    """The signing secrets of one org, sealed; its id is the org's. Written by compare-and-set on `version`."""

    version: int
    secrets: list[dict[str, Any]]

    class Settings:
        """Where they are stored; `secret_key_ids` as with jobs."""

        name = "signing_secrets"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("secret_key_ids", ASCENDING)], name="secret_key_ids", sparse=True),
            OUTBOX_INDEX,
        ]


class OrgDocument(StoredDocument):
    """What an org has set or was granted; its id is the org's. Only fields that were written are there."""

    version: int

    class Settings:
        """Where they are stored."""

        name = "orgs"
        indexes: ClassVar[list[IndexModel]] = [OUTBOX_INDEX]


class TargetHostDocument(StoredDocument):
    """A host that an org's jobs call, under "<org>|<host>:<port>"."""

    org_id: str
    host: str
    limited: bool
    version: int

    class Settings:
        """Where they are stored and how they are listed; those with limits of their own stay."""

        name = "target_hosts"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("org_id", ASCENDING), ("host", ASCENDING)], name="org_host"),
            IndexModel([("org_id", ASCENDING)], name="org_limited", partialFilterExpression={"limited": True}),
            IndexModel(
                [("expire_time", ASCENDING)],
                name="expire",
                expireAfterSeconds=0,
                partialFilterExpression={"limited": False},
            ),
            OUTBOX_INDEX,
        ]


class StoredBytesDocument(StoredDocument):
    """The bytes of an org's answers that expire on one day; goes with them."""

    org_id: str
    stored_bytes: int
    expire_time: datetime

    class Settings:
        """Where the sums are stored."""

        name = "stored_bytes"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("org_id", ASCENDING)], name="org"),
            IndexModel([("expire_time", ASCENDING)], name="expire", expireAfterSeconds=0),
        ]


class RequestLimitDocument(StoredDocument):
    """How much of a request limit is used up in the window that ends at `expire_time`."""

    expire_time: datetime

    class Settings:
        """Where the windows are stored."""

        name = "request_limits"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("expire_time", ASCENDING)], name="expire", expireAfterSeconds=0),
        ]


class AuditEventDocument(StoredDocument):
    """An audit event; its id sorts by time."""

    org_id: str
    event_time: datetime
    expire_time: datetime

    class Settings:
        """Where events are stored and how they are listed: each filter with the id behind it, newest first."""

        name = "audit_events"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("org_id", ASCENDING), ("_id", DESCENDING)], name="org_newest"),
            IndexModel([("org_id", ASCENDING), ("object_id", ASCENDING), ("_id", DESCENDING)], name="org_object"),
            IndexModel([("org_id", ASCENDING), ("actor", ASCENDING), ("_id", DESCENDING)], name="org_actor"),
            IndexModel([("org_id", ASCENDING), ("method", ASCENDING), ("_id", DESCENDING)], name="org_method"),
            IndexModel([("expire_time", ASCENDING)], name="expire", expireAfterSeconds=0),
        ]


DOCUMENTS: tuple[type[StoredDocument], ...] = (
    ApiKeyDocument,
    AuditEventDocument,
    BlobDocument,
    ExecutionDocument,
    JobDocument,
    OrgDocument,
    PartitionTableDocument,
    RequestLimitDocument,
    SigningSecretsDocument,
    StoredBytesDocument,
    TargetHostDocument,
)
WITH_OUTBOX: tuple[type[StoredDocument], ...] = (
    ApiKeyDocument,
    ExecutionDocument,
    JobDocument,
    OrgDocument,
    SigningSecretsDocument,
    TargetHostDocument,
)
"""Whose documents carry audit events on their way."""
