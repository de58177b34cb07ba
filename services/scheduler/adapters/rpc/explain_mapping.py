"""From explanations to their messages."""

from __future__ import annotations

from punctual.v1 import job_service_pb2 as pb

from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.execution_mapping import from_execution
from services.scheduler.domain.explanation import Explanation


def from_explanation(explanation: Explanation) -> pb.FireExplanation:
    """Return the message of an explanation."""
    return pb.FireExplanation(
        fire_time=to_timestamp(explanation.fire_time),
        decision=explanation.decision.value,
        reason=explanation.reason,
        explanation=explanation.text,
        execution=from_execution(explanation.execution) if explanation.execution else None,
    )
