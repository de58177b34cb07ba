"""Between BatchCreateJobs and single submissions: what cannot be read fails by itself, the rest goes on."""

from __future__ import annotations

from collections.abc import Sequence

from punctual.v1 import job_service_pb2 as pb

from libs.common.errors import InvalidArgumentError, PunctualError
from libs.common.rpc.errors import shorten
from services.scheduler.adapters.rpc.job_mapping import from_job
from services.scheduler.adapters.rpc.job_requests import to_submission, under_job
from services.scheduler.usecases.create_jobs import Outcome, Submission

MAX_BATCH = 1000
MAX_BATCH_BYTES = 3_407_872
"""3.25 MiB: the answer, which has all the jobs with their defaults filled in, must fit into one message as well."""


def to_submissions(request: pb.BatchCreateJobsRequest) -> list[Submission | InvalidArgumentError]:
    """Return the submission of each item, or why it cannot be read.

    Raises:
        InvalidArgumentError: there are none, or too many, or they are too large together.
    """
    count = len(request.requests)
    if not 1 <= count <= MAX_BATCH:
        raise InvalidArgumentError.of("requests", "OUT_OF_RANGE", f"{count} items are not within 1 to {MAX_BATCH}")
    size = request.ByteSize()
    if size > MAX_BATCH_BYTES:
        raise InvalidArgumentError.of(
            "requests", "BATCH_TOO_LARGE", f"{size} bytes are more than {MAX_BATCH_BYTES}: send them in several calls"
        )
    return [_to_submission(item) for item in request.requests]


def from_outcomes(
    submissions: Sequence[Submission | InvalidArgumentError], outcomes: Sequence[Outcome]
) -> pb.BatchCreateJobsResponse:
    """Return the message of what came of each item; `outcomes` has one for each that could be read."""
    rest = iter(outcomes)
    return pb.BatchCreateJobsResponse(
        results=[
            _result(submission if isinstance(submission, InvalidArgumentError) else next(rest), submission)
            for submission in submissions
        ]
    )


def _to_submission(item: pb.CreateJobRequest) -> Submission | InvalidArgumentError:
    try:
        return to_submission(item)
    except InvalidArgumentError as error:
        return error


def _result(outcome: Outcome, submission: Submission | InvalidArgumentError) -> pb.BatchCreateJobsResult:
    if isinstance(outcome, InvalidArgumentError):
        error = under_job(outcome)
        return pb.BatchCreateJobsResult(error=_item_error(error, error.violations[0].field))
    if isinstance(outcome, PunctualError):
        return pb.BatchCreateJobsResult(error=_item_error(outcome, ""))
    validated = isinstance(submission, Submission) and submission.validate_only and not outcome.replayed
    return pb.BatchCreateJobsResult(job=from_job(outcome.job, stored=not validated))


def _item_error(error: PunctualError, field: str) -> pb.ItemError:
    # Cut as CreateJob's would be: what is refused must not make the answer larger than a message.
    return pb.ItemError(code=error.code.value, reason=error.reason, message=shorten(error.message), field=field)
