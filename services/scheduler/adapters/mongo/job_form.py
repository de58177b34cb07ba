"""The stored form of a job: the record's fields, the definition as one value, and copies of what queries look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.scheduler.adapters.mongo.codec import Codec, Document
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets, key_ids_of
from services.scheduler.adapters.mongo.job_filters import label_text
from services.scheduler.domain.begin import takes_overlap_slot
from services.scheduler.domain.job import (
    KEPT_STATE_CHANGES,
    CatchUpPolicy,
    Job,
    JobDefinition,
    JobState,
    OverlapPolicy,
    StateChange,
)
from services.scheduler.domain.planning import FireCursor
from services.scheduler.domain.schedule import Schedule
from services.scheduler.domain.target_url import split_target_url
from services.scheduler.usecases.ports.job_store import DueJob

DUE_FIELDS = {
    "org_id": 1,
    "project_id": 1,
    "partition": 1,
    "revision": 1,
    "schedule_revision": 1,
    "next_fire_time": 1,
    "trace_parent": 1,
    "definition.schedule": 1,
    "definition.catch_up": 1,
    "definition.overlap": 1,
}
"""What `due_job` needs."""

JOB_FIELDS = dict.fromkeys(
    (
        "org_id",
        "definition",
        "create_time",
        "update_time",
        "creator",
        "state",
        "state_reason",
        "state_note",
        "state_time",
        "next_fire_time",
        "next_due_time",
        "revision",
        "schedule_revision",
        "schedule_time",
        "delete_time",
        "purge_time",
        "definition_revision",
        "state_changes",
        "consecutive_failures",
        "fingerprint",
        "duplicate_until",
        "idempotency_key",
        "content_digest",
        "tzdata_version",
        "trace_parent",
        # Not read by `decode`: tells whether what was decoded still stands (see `known_jobs`).
        "secret_key_ids",
    ),
    1,
)
"""What `decode` needs: neither the copies that queries look for, nor audit events on their way."""


class JobForm:
    """Writes and reads jobs; secrets are sealed on the way in and stay so on the way out."""

    def __init__(self, secrets: HeaderSecrets) -> None:
        self._codec = Codec()
        self._secrets = secrets

    def state_change(self, change: StateChange) -> Document:
        """Return what a `$push` adds for a change of the state."""
        return {"state_changes": {"$each": [self._codec.encode(change)], "$slice": -KEPT_STATE_CHANGES}}

    def encode(self, job: Job) -> Document:
        """Return the document of a job."""
        definition = self._secrets.seal(job.org_id, job.job_id, job.definition)
        key_ids = key_ids_of(definition)
        return {
            "_id": job.job_id,
            "org_id": job.org_id,
            "project_id": job.definition.project_id,
            "name": job.definition.name,
            "labels": [label_text(key, value) for key, value in job.definition.labels.items()],
            "target_host": split_target_url(job.definition.target.url).host,
            "partition": job.partition,
            "definition": self._codec.encode(definition),
            # The index on it is sparse: only jobs with secrets are in it.
            **({"secret_key_ids": key_ids} if key_ids else {}),
            "state": job.state.value,
            "state_reason": job.state_reason,
            "state_note": job.state_note,
            "state_time": job.state_time,
            "next_fire_time": job.next_fire_time,
            "next_due_time": job.next_due_time,
            "revision": job.revision,
            "schedule_revision": job.schedule_revision,
            "schedule_time": job.schedule_time,
            "definition_revision": job.definition_revision,
            "state_changes": [self._codec.encode(change) for change in job.state_changes],
            "create_time": job.create_time,
            "update_time": job.update_time,
            "delete_time": job.delete_time,
            # The index on it is sparse: only deleted jobs are in it.
            **({"purge_time": job.purge_time} if job.purge_time else {}),
            "creator": job.creator,
            "consecutive_failures": job.consecutive_failures,
            "fingerprint": job.fingerprint,
            # The index on it is unique and sparse: only jobs that an equal submission would duplicate are in it.
            **(
                {"fingerprint_slot": job.fingerprint, "duplicate_until": job.duplicate_until}
                if job.duplicate_until
                else {}
            ),
            "idempotency_key": job.idempotency_key,
            "content_digest": job.content_digest,
            "tzdata_version": job.tzdata_version,
            "trace_parent": job.trace_parent,
        }

    def decode(self, document: Mapping[str, Any]) -> Job:
        """Return the job of a document."""
        return Job(
            job_id=document["_id"],
            org_id=document["org_id"],
            definition=self._codec.decode(document["definition"], JobDefinition),
            create_time=document["create_time"],
            update_time=document["update_time"],
            creator=document["creator"],
            state=JobState(document["state"]),
            state_reason=document["state_reason"],
            state_note=document["state_note"],
            state_time=document.get("state_time"),
            next_fire_time=document["next_fire_time"],
            next_due_time=document["next_due_time"],
            revision=document["revision"],
            schedule_revision=document["schedule_revision"],
            schedule_time=document["schedule_time"],
            delete_time=document["delete_time"],
            purge_time=document.get("purge_time"),
            definition_revision=document.get("definition_revision", 1),
            state_changes=tuple(
                self._codec.decode(change, StateChange) for change in document.get("state_changes", ())
            ),
            consecutive_failures=document["consecutive_failures"],
            fingerprint=document["fingerprint"],
            duplicate_until=document.get("duplicate_until"),
            idempotency_key=document["idempotency_key"],
            content_digest=document.get("content_digest", ""),
            tzdata_version=document["tzdata_version"],
            trace_parent=document["trace_parent"],
        )

    def due_job(self, document: Mapping[str, Any]) -> DueJob:
        """Return what the tick needs of a job, out of its `DUE_FIELDS`."""
        definition = document["definition"]
        schedule = self._codec.decode(definition["schedule"], Schedule)
        return DueJob(
            cursor=FireCursor(
                job_id=document["_id"],
                schedule=schedule,
                catch_up=self._codec.decode(definition["catch_up"], CatchUpPolicy),
                next_fire_time=document["next_fire_time"],
            ),
            org_id=document["org_id"],
            project_id=document["project_id"],
            partition=document["partition"],
            revision=document["revision"],
            schedule_revision=document["schedule_revision"],
            exclusive=takes_overlap_slot(schedule, OverlapPolicy(definition["overlap"])),
            trace_parent=document["trace_parent"],
        )
