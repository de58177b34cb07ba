"""Decides what a submission is to one that came before it: a repetition, a misuse of its key, a duplicate, or nothing.

The content of an idempotency key is that of the creating call, also when the job was updated since: it is known by a
digest. Secrets are not part of any stored digest; they are compared in clear, as long as the stored ones are still
those of the creating call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.common.errors import AlreadyExistsError, InvalidArgumentError
from services.scheduler.domain.job import Job
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.ports.secret_opener import SecretOpener


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked submission as the job that it will be."""

    job: Job
    validate_only: bool = False
    allow_duplicate: bool = False
    refusal: InvalidArgumentError | None = None
    """Why it may not be stored by now: all that it can be is a repetition."""


@dataclass(frozen=True, slots=True)
class Replay:
    """It repeats an earlier call; this is the job of that."""

    first: Job


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not be stored."""

    error: AlreadyExistsError


@dataclass(frozen=True, slots=True)
class Free:
    """Nothing stands in its way, once the job named here, if any, gives up its fingerprint."""

    superseded_id: str = ""


Verdict = Replay | Refused | Free


@dataclass(frozen=True, slots=True)
class JudgeResubmission:
    """Compares drafts with what is stored."""

    jobs: JobStore
    secrets: SecretOpener

    async def __call__(self, scope: OrgScope, drafts: Sequence[Draft], now: datetime) -> Mapping[str, Verdict]:
        """Return the verdict on each draft by its job's id."""
        keys = {draft.job.idempotency_key for draft in drafts} - {""}
        firsts = await self.jobs.find_by_idempotency_keys(scope.org_id, keys) if keys else {}
        fingerprints = {draft.job.fingerprint for draft in drafts if draft.job.duplicate_until}
        holders = await self.jobs.find_by_fingerprints(fingerprints) if fingerprints else {}
        return {
            draft.job.job_id: self._judge(
                scope, draft, firsts.get(draft.job.idempotency_key), holders.get(draft.job.fingerprint), now
            )
            for draft in drafts
        }

    def _judge(self, scope: OrgScope, draft: Draft, first: Job | None, holder: Job | None, now: datetime) -> Verdict:
        # The key comes first: a repetition is no duplicate of the job that it made.
        if first is not None:
            visible = scope.allows(first.definition.project_id)
            if visible and self._is_same(first, draft.job):
                return Replay(first)
            return Refused(_key_reused(draft.job, first.job_id if visible else ""))
        if holder is None:
            return Free()
        if draft.allow_duplicate or holder.duplicate_until is None or holder.duplicate_until <= now:
            return Free(superseded_id=holder.job_id)
        return Refused(_duplicate(holder, holder.duplicate_until))

    def _is_same(self, first: Job, draft: Job) -> bool:
        if first.content_digest != draft.content_digest:
            return False
        if first.definition_revision != 1:
            return True
        opened = self.secrets.open(first)
        return opened is None or _secrets(opened) == _secrets(draft)


def _secrets(job: Job) -> list[str]:
    return [header.value for header in job.definition.target.headers if header.sensitive]


def _key_reused(draft: Job, first_id: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        "IDEMPOTENCY_KEY_REUSED",
        f"idempotency key {draft.idempotency_key!r} was used for other content",
        resource_type="job",
        resource_id=first_id,
        metadata={"idempotencyKey": draft.idempotency_key},
    )


def _duplicate(holder: Job, window_end: datetime) -> AlreadyExistsError:
    until = window_end.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return AlreadyExistsError(
        "DUPLICATE_JOB",
        f"job {holder.job_id} does the same and was created moments ago; until {until} a second one needs "
        "allow_duplicate",
        resource_type="job",
        resource_id=holder.job_id,
        metadata={"existingJobId": holder.job_id, "windowEndTime": until},
    )
