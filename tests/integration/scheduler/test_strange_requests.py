"""Whatever a caller sends, it gets an answer or an error of ours: one ErrorInfo, and never the text of an exception.

Each public method is called with bytes that are no message, and with messages whose fields hold what nobody should
send: extremes, unknown enum values, control characters, instants beyond the calendar. The choice is random and the same
in each run.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.symbol_database import Default
from punctual.v1 import job_service_pb2, schedule_pb2

from services.scheduler.adapters.rpc import page_tokens
from services.scheduler.app import PUBLIC_SERVICES
from tests.support.served_scheduler import ORG, ServedScheduler, a_job, cron, refusal

METHODS: dict[str, MethodDescriptor] = {
    f"{service.rpartition('.')[2]}.{method.name}": method
    for service in PUBLIC_SERVICES
    for method in Default().pool.FindServiceByName(service).methods
}
TRIES = 25
PATIENCE = 5.0
OURS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TEXTS = [
    "",
    "x",
    "*",
    "\0",
    "a\r\nb",
    "ü" * 300,
    "9" * 40,
    "{{prompt}}",
    "[",
    "01HZZZZZZZZZZZZZZZZZZZZZZZ",
    "\u202e$.a",
]
TIMES = [
    "09:00",
    "25:61",
    "2026-02-30",
    "2026-12-01T09:00",
    "Europe/Berlin",
    "* * * * *",
    "1-99/0 * * * *",
    "https://a/",
]
NUMBERS = [0, 1, -1, 7, 2**31 - 1, -(2**31)]


def fill(message: Message, chance: random.Random, depth: int = 0) -> Message:
    """Set about half of the fields to something odd."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.5 or depth > 5:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[chance.choice(TEXTS)] = chance.choice(TEXTS)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(chance.randint(1, 3)):
                if field.message_type is not None:
                    fill(values.add(), chance, depth + 1)
                else:
                    values.append(odd_value(field, chance))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), chance, depth + 1)
        else:
            setattr(message, field.name, odd_value(field, chance))
    return message


def odd_value(field: FieldDescriptor, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = chance.choice(TEXTS + TIMES)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice([0, 1, 2, 99])
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice([0.0, -1.5, float("nan"), float("inf")])
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return chance.choice([0, 1, 2**31])
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice([*NUMBERS, 2**62, -(2**62)])
        case _:
            return chance.choice(NUMBERS)


async def failure(api: ServedScheduler, method: MethodDescriptor, data: bytes) -> grpc.aio.AioRpcError | None:
    """Send a request as bytes; returns the error that came, if one came."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            call = api.channel.unary_stream(path)(data, metadata=ORG, timeout=PATIENCE)
            await anext(aiter(call))
            call.cancel()
        else:
            await api.channel.unary_unary(path)(data, metadata=ORG, timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def test_strange_requests_get_errors_of_ours(api: ServedScheduler) -> None:
    reasons: Counter[str] = Counter()
    for name, method in METHODS.items():
        chance = random.Random(name)
        for _ in range(TRIES):
            request = fill(GetMessageClass(method.input_type)(), chance)
            error = await failure(api, method, request.SerializeToString())
            if error is not None:
                shown = refusal(error)
                assert error.code() in OURS, f"{name}: {error.code()} {error.details()} after {request}"
                assert shown.infos == 1, f"{name}: {error.details()}"
                named = error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert bool(shown.fields) == named, f"{name}: {error.details()}"
                reasons[shown.reason] += 1
    assert len(reasons) > 20, "the requests are strange in many ways"


async def test_bytes_that_are_no_message_are_refused(api: ServedScheduler) -> None:
    for name, method in METHODS.items():
        error = await failure(api, method, b"\xff\xff\xff")
        assert error is not None, name
        assert (error.code(), refusal(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_MESSAGE"), name
        assert "protobuf" not in error.details(), name


async def test_pages_end_early_where_they_would_not_fit_into_a_message(
    api: ServedScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_tokens, "MAX_PAGE_BYTES", 20_000)
    made = []
    for number in range(7):
        job = a_job(name=f"large {number}")
        job.target.prompt = f"{number}" * 9000
        answer = await api.jobs.CreateJob(job_service_pb2.CreateJobRequest(job=job), metadata=ORG)
        made.append(answer.job.job_id)
    found: list[str] = []
    token, pages = "", 0
    while token or not pages:
        page = await api.jobs.ListJobs(job_service_pb2.ListJobsRequest(page_token=token), metadata=ORG)
        found += [job.job_id for job in page.jobs]
        token, pages = page.next_page_token, pages + 1
    assert (found, pages) == (made[::-1], 4)


async def test_pages_of_explanations_end_early_as_well(api: ServedScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await api.create(name="often run")
    ran = [
        (await api.jobs.RunJob(job_service_pb2.RunJobRequest(job_id=job.job_id), metadata=ORG)).execution_id
        for _ in range(7)
    ]
    monkeypatch.setattr(page_tokens, "MAX_PAGE_BYTES", 1000)
    found: list[str] = []
    token, pages = "", 0
    while token or not pages:
        request = job_service_pb2.ExplainJobRequest(job_id=job.job_id, page_token=token)
        page = await api.jobs.ExplainJob(request, metadata=ORG)
        assert page.ByteSize() < 1200
        found += [one.execution.execution_id for one in page.explanations if one.HasField("execution")]
        token, pages = page.next_page_token, pages + 1
    assert (sorted(found), len(found)) == (sorted(ran), 7)


async def test_a_batch_too_large_to_be_answered_is_refused_before_it_is_done(api: ServedScheduler) -> None:
    job = a_job()
    job.target.prompt = "p" * 9000
    request = job_service_pb2.BatchCreateJobsRequest(
        requests=[job_service_pb2.CreateJobRequest(job=job, allow_duplicate=True)] * 390
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.jobs.BatchCreateJobs(request, metadata=ORG)
    assert (raised.value.code(), refusal(raised.value).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE")
    assert not (await api.jobs.ListJobs(job_service_pb2.ListJobsRequest(), metadata=ORG)).jobs


LONG = "ü" * 20_000
MANY = {f"Label {number}": "" for number in range(3000)}


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("GetJob", job_service_pb2.GetJobRequest(job_id=LONG), grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
        (
            "PreviewSchedule",
            job_service_pb2.PreviewScheduleRequest(schedule=cron("* * * * *", zone=LONG)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "UNKNOWN_TIME_ZONE",
        ),
        (
            "CreateJob",
            job_service_pb2.CreateJobRequest(job=a_job(labels=MANY)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "TOO_MANY_LABELS",
        ),
    ],
)
async def test_however_much_is_wrong_callers_get_to_see_it(
    api: ServedScheduler, method: str, request_: Message, code: grpc.StatusCode, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(api.jobs, method)(request_, metadata=ORG)
    assert (raised.value.code(), refusal(raised.value).reason) == (code, reason)


async def test_refusals_do_not_make_the_answer_to_a_batch_too_large(api: ServedScheduler) -> None:
    daily = schedule_pb2.Schedule(daily=schedule_pb2.DailyRule(time="\0" * 3300))
    wrong = job_service_pb2.CreateJobRequest(job=a_job(schedule=daily))
    right = job_service_pb2.CreateJobRequest(job=a_job())
    answer = await api.jobs.BatchCreateJobs(
        job_service_pb2.BatchCreateJobsRequest(requests=[right, *[wrong] * 900]), metadata=ORG
    )
    assert answer.results[0].job.job_id
    assert {result.error.reason for result in answer.results[1:]} == {"INVALID_TIME"}
