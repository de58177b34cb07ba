"""Spans and instants from messages: in the precision that is stored, and refused where they are none."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.times import to_span


@pytest.mark.parametrize(
    ("seconds", "nanos", "millis"),
    [(0, 0, 0), (1, 999_999_999, 1999), (0, 1, 0), (-2, 0, -2000), (-1, -500_000_000, -1500)],
)
def test_a_span_is_cut_to_milliseconds(seconds: int, nanos: int, millis: int) -> None:
    assert to_span(Duration(seconds=seconds, nanos=nanos), "jitter") == timedelta(milliseconds=millis)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(5, -1), (-5, 1), (5, 1_000_000_000), (0, -1_000_000_000), (2**62, 0), (-(2**62), 0)]
)
def test_what_is_no_duration_is_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        to_span(Duration(seconds=seconds, nanos=nanos), "jitter")
    assert [(violation.field, violation.reason) for violation in raised.value.violations] == [
        ("jitter", "INVALID_DURATION")
    ]
