"""What a grant may take in a reply is reckoned before it is written: no grant may turn out larger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from punctual.internal.v1 import attempt_service_pb2

from services.scheduler.adapters.rpc.attempt_mapping import write_grant
from services.scheduler.domain.definition_rules import check_definition
from services.scheduler.domain.job import Header, ResponseCheck, ResponsePolicy
from services.scheduler.domain.request_body import BodyValues, render_body
from services.scheduler.domain.request_size import largest_request
from services.scheduler.domain.target_host import HostLimits
from services.scheduler.usecases.begin_attempts import GrantedAttempt
from services.scheduler.usecases.grant_details import GrantDetails
from tests.support.scheduler_values import NOW, a_definition, a_job, an_execution

TARGET = a_definition().target
VALUE = '"' + "☕" * 9_998 + '"'
CHECK = ResponseCheck(json_path_equals="$['" + "é" * 490 + "']", json_value=VALUE)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": replace(TARGET, prompt="☕" * 10_000, url="https://a.example/" + "x" * 2000)},
        {"target": replace(TARGET, headers=(Header("x-a", "ÿ" * 500),) * 60)},
        {"response": ResponsePolicy(success_codes=tuple(range(200, 600)), checks=(CHECK,) * 16)},
    ],
    ids=["plain", "prompt", "headers", "policy"],
)
def test_a_grant_is_not_larger_than_reckoned(changes: dict[str, Any]) -> None:
    definition = a_definition(**changes)
    check_definition(definition, NOW)
    job = a_job(definition)
    execution = an_execution(job)
    body = render_body(definition.target, BodyValues(job.job_id, execution.execution_id, 1, NOW, "UTC"))
    message = attempt_service_pb2.AttemptGrant()
    write_grant(
        message, GrantedAttempt(execution, job, 1, 1), body, GrantDetails([b"k" * 32] * 2, HostLimits(1, 1), 1, None)
    )
    assert message.ByteSize() <= largest_request(definition)
