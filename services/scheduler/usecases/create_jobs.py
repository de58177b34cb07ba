"""Creates jobs, one or many: checked, with their first fire computed, stored durably, and announced to the tick.

Who comes first is decided by two unique indexes, so that any number of calls at once make one job:

* the idempotency key, unique in the org. The same key with the same content returns the first job, with other content
  it is refused;
* the fingerprint, held by a job for a window after its creation. A second submission within it is refused, unless it
  says `allow_duplicate`; a job whose window is over gives the fingerprint up to the next one.

A refused insert has stored nothing: each round below may be repeated, and a crash leaves nothing to mend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import InvalidArgumentError, PunctualError
from libs.common.ids import new_id
from libs.common.instants import truncate_to_millis
from libs.common.tracing import format_trace_parent
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.domain.fingerprint import content_digest, fingerprint
from services.scheduler.domain.idempotency import check_idempotency_key
from services.scheduler.domain.job import Job, JobDefinition
from services.scheduler.domain.org import check_interval
from services.scheduler.domain.schedule import TZDATA_VERSION, due_time, first_fire
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.caller import Caller
from services.scheduler.usecases.change_job_state import lost_races
from services.scheduler.usecases.org_settings import OrgQuotas
from services.scheduler.usecases.ports.due_nudge import DueNudge
from services.scheduler.usecases.ports.job_store import JobStore
from services.scheduler.usecases.resubmission import Draft, Free, JudgeResubmission, Refused, Replay

CHUNK = 250
"""Jobs stored by one write; while the database works on one chunk, the next one is checked."""

MAX_ROUNDS = 5
"""Lost races for a fingerprint before a submission gives up as ABORTED."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a caller asks for."""

    definition: JobDefinition
    idempotency_key: str = ""
    validate_only: bool = False
    allow_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class CreatedJob:
    """A job as stored; `replayed` when an earlier call with the same idempotency key had created it."""

    job: Job
    replayed: bool = False


Outcome = CreatedJob | PunctualError


@dataclass(frozen=True, slots=True)
class CreateJobs:
    """Serves CreateJob and BatchCreateJobs."""

    jobs: JobStore
    judge: JudgeResubmission
    nudge: DueNudge
    quotas: OrgQuotas
    audit: JobAudit
    clock: Clock
    duplicate_window: timedelta
    """How long an equal submission counts as a duplicate; zero: never."""

    async def one(self, caller: Caller, submission: Submission) -> CreatedJob:
        """Create a job in the caller's org.

        Raises:
            InvalidArgumentError: with every violation.
            AlreadyExistsError: the idempotency key stands for other content, or the job is a duplicate.
            ResourceExhaustedError: the org has all the jobs that it may have.
        """
        least = await self.quotas.min_interval(caller.scope.org_id)
        (outcome,) = await self._decide(caller, [self._draft(caller, submission, least)])
        if isinstance(outcome, PunctualError):
            raise outcome
        return outcome

    async def many(self, caller: Caller, submissions: Sequence[Submission]) -> list[Outcome]:
        """Create jobs, each as it would be alone; returns what came of each, in order."""
        least = await self.quotas.min_interval(caller.scope.org_id)
        outcomes: list[Outcome] = []
        deciding: asyncio.Task[list[Outcome]] | None = None
        try:
            for start in range(0, len(submissions), CHUNK):
                drafts = [self._draft(caller, item, least) for item in submissions[start : start + CHUNK]]
                if deciding is not None:
                    outcomes += await deciding
                deciding = asyncio.create_task(self._decide(caller, drafts))
                # The write is on its way before the next chunk takes the processor.
                await asyncio.sleep(0)
            if deciding is not None:
                outcomes += await deciding
        finally:
            if deciding is not None:
                deciding.cancel()
        return outcomes

    def _draft(self, caller: Caller, submission: Submission, least: timedelta) -> Draft | PunctualError:
        now = truncate_to_millis(self.clock.now())
        definition = submission.definition
        refusal: InvalidArgumentError | None = None
        try:
            _check(submission, now, least)
        except InvalidArgumentError as error:
            if not (submission.idempotency_key and _may_have_been_sound(error)):
                return error
            refusal = error
        if not caller.scope.allows(definition.project_id):
            return InvalidArgumentError.of(
                "project_id", "PROJECT_NOT_ALLOWED", f"the credential does not cover project {definition.project_id!r}"
            )
        return Draft(
            self._new_job(caller, submission, now, None if refusal else first_fire(definition.schedule, now)),
            validate_only=submission.validate_only,
            allow_duplicate=submission.allow_duplicate,
            refusal=refusal,
        )

    async def _decide(self, caller: Caller, drafts: Sequence[Draft | PunctualError]) -> list[Outcome]:
        """Store drafts, or foretell what storing them would come to; a draft that is refused already stays so."""
        judged = [draft for draft in drafts if isinstance(draft, Draft)]
        sound = [draft for draft in judged if draft.refusal is None]
        refused = [(draft, draft.refusal) for draft in judged if draft.refusal is not None]
        wanted = [draft for draft in sound if not draft.validate_only]
        room = await self.quotas.room_for_jobs(caller.scope.org_id, len(wanted)) if wanted else 0
        outcomes = await self._store(caller, wanted[:room])
        outcomes |= await self._beyond_room(caller, wanted[room:], room - sum(map(_is_new, outcomes.values())))
        outcomes |= await self._foretell(caller, [draft for draft in sound if draft.validate_only])
        outcomes |= await self._repeated(caller, refused)
        return [outcomes[draft.job.job_id] if isinstance(draft, Draft) else draft for draft in drafts]

    async def _store(self, caller: Caller, drafts: Sequence[Draft]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        waiting = drafts
        for round_number in range(MAX_ROUNDS):
            if not waiting:
                return outcomes
            jobs = [draft.job for draft in waiting]
            refused = await self.jobs.insert_new(jobs, audits=[self.audit.created(caller, job) for job in jobs])
            stored = [draft.job for draft in waiting if draft.job.job_id not in refused]
            self._announce(stored)
            self.quotas.note_jobs(caller.scope.org_id, len(stored))
            outcomes |= {job.job_id: CreatedJob(job) for job in stored}
            waiting = [draft for draft in waiting if draft.job.job_id in refused]
            if waiting:
                waiting = await self._resolve(caller, waiting, outcomes, gives_way=round_number > 0)
        return outcomes | {draft.job.job_id: lost_races(draft.job.job_id) for draft in waiting}

    async def _resolve(
        self, caller: Caller, refused: Sequence[Draft], outcomes: dict[str, Outcome], *, gives_way: bool
    ) -> list[Draft]:
        """Decide drafts that others came before; returns those to be stored now that their way is free."""
        verdicts = await self.judge(caller.scope, refused, truncate_to_millis(self.clock.now()))
        again: list[Draft] = []
        superseded: set[str] = set()
        for draft in refused:
            match verdicts[draft.job.job_id]:
                case Replay(first):
                    outcomes[draft.job.job_id] = CreatedJob(first, replayed=True)
                case Refused(error):
                    outcomes[draft.job.job_id] = error
                case Free(holder_id) if draft.allow_duplicate and (gives_way or holder_id in superseded):
                    # Where many equal jobs are wanted at once, it is enough that one of them holds the fingerprint.
                    again.append(replace(draft, job=replace(draft.job, duplicate_until=None)))
                case Free(holder_id):
                    superseded.add(holder_id)
                    again.append(draft)
        superseded.discard("")
        if superseded:
            await self.jobs.release_fingerprints(superseded)
        return again

    async def _beyond_room(self, caller: Caller, drafts: Sequence[Draft], left: int) -> dict[str, Outcome]:
        """Refuse drafts above the org's quota, but for those that come to no new job.

        What came before them and came to none either has left room.
        """
        outcomes = await self._answered_before(caller, drafts)
        new = [draft for draft in drafts if _is_new(outcomes[draft.job.job_id])]
        outcomes |= await self._store(caller, new[:left])
        for draft in new[left:]:
            outcomes[draft.job.job_id] = await self.quotas.jobs_exceeded(caller.scope.org_id)
        return outcomes

    async def _repeated(
        self, caller: Caller, refused: Sequence[tuple[Draft, InvalidArgumentError]]
    ) -> dict[str, Outcome]:
        """Answer drafts that may not be stored by now, but repeat what was stored, as the first call was answered."""
        outcomes = await self._answered_before(caller, [draft for draft, _ in refused])
        refusals = {draft.job.job_id: refusal for draft, refusal in refused}
        return {job_id: one if _is_replay(one) else refusals[job_id] for job_id, one in outcomes.items()}

    async def _answered_before(self, caller: Caller, drafts: Sequence[Draft]) -> dict[str, Outcome]:
        """Foretell outcomes that are told without a write: what they tell of stored jobs is durable."""
        outcomes = await self._foretell(caller, drafts)
        if not all(map(_is_new, outcomes.values())):
            await self.jobs.confirm()
        return outcomes

    async def _foretell(self, caller: Caller, drafts: Sequence[Draft]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        if not drafts:
            return outcomes
        verdicts = await self.judge(caller.scope, drafts, truncate_to_millis(self.clock.now()))
        for draft in drafts:
            match verdicts[draft.job.job_id]:
                case Replay(first):
                    outcomes[draft.job.job_id] = CreatedJob(first, replayed=True)
                case Refused(error):
                    outcomes[draft.job.job_id] = error
                case Free():
                    outcomes[draft.job.job_id] = CreatedJob(draft.job)
        return outcomes

    def _announce(self, jobs: Sequence[Job]) -> None:
        due = min((job.next_due_time for job in jobs if job.next_due_time is not None), default=None)
        if due is not None:
            self.nudge.notify(due)

    def _new_job(self, caller: Caller, submission: Submission, now: datetime, fire: datetime | None) -> Job:
        job_id, definition = new_id(), submission.definition
        return Job(
            job_id=job_id,
            org_id=caller.scope.org_id,
            definition=definition,
            create_time=now,
            update_time=now,
            creator=caller.subject,
            next_fire_time=fire,
            next_due_time=due_time(definition.schedule, job_id, fire) if fire else None,
            schedule_time=now,
            fingerprint=fingerprint(caller.scope.org_id, definition),
            duplicate_until=now + self.duplicate_window if self.duplicate_window else None,
            idempotency_key=submission.idempotency_key,
            content_digest=content_digest(definition) if submission.idempotency_key else "",
            tzdata_version=TZDATA_VERSION,
            trace_parent=format_trace_parent(),
        )


def _is_new(outcome: Outcome) -> bool:
    return isinstance(outcome, CreatedJob) and not outcome.replayed


def _is_replay(outcome: Outcome) -> bool:
    return isinstance(outcome, CreatedJob) and outcome.replayed


def _check(submission: Submission, now: datetime, least: timedelta) -> None:
    check_definition(submission.definition, now)
    check_idempotency_key(submission.idempotency_key)
    if violations := list(check_interval(submission.definition.schedule, now, least)):
        raise InvalidArgumentError(violations)


def _may_have_been_sound(error: InvalidArgumentError) -> bool:
    """Whether a submission may have been sound before: whether a schedule still fires is a question of the time."""
    return all(violation.field.partition(".")[0] == "schedule" for violation in error.violations)
