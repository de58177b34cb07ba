"""What may be repeated is what the protos say; the list here makes a change of theirs visible."""

from __future__ import annotations

import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message
from punctual.v1.execution_service_pb2 import RetryExecutionRequest
from punctual.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest, RunJobRequest

from libs.client.repeatable import PUBLIC_SERVICES, is_repeatable

METHODS = [method for service in PUBLIC_SERVICES for method in service.methods]


def test_methods_without_a_promise_of_idempotency() -> None:
    refused = [m.name for m in METHODS if not is_repeatable(message_factory.GetMessageClass(m.input_type)())]
    assert sorted(refused) == [
        "BulkPauseJobs",
        "BulkResumeJobs",
        "CreateApiKey",
        "CreateJob",
        "RetryExecution",
        "RotateSigningSecret",
        "RunJob",
        "UpdateJob",
    ]


def test_each_method_has_a_request_of_its_own() -> None:
    assert len({method.input_type.full_name for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize(
    ("request_", "repeatable"),
    [
        (CreateJobRequest(idempotency_key="k"), True),
        (RunJobRequest(idempotency_key="k"), True),
        (RetryExecutionRequest(idempotency_key="k"), True),
        (BatchCreateJobsRequest(requests=[CreateJobRequest(idempotency_key="k")]), True),
        (BatchCreateJobsRequest(requests=[CreateJobRequest(idempotency_key="k"), CreateJobRequest()]), False),
    ],
)
def test_key_makes_a_call_repeatable(request_: Message, repeatable: bool) -> None:
    assert is_repeatable(request_) is repeatable
