"""What a process tells of itself, and counters whose labels stay few."""

from __future__ import annotations

import time

import grpc
import pytest

from libs.common.metrics import OTHER, Metrics
from libs.common.process_metrics import ProcessMetrics
from libs.common.rpc.call_metrics import CallMetrics
from tools.devstack.waiting import wait_until


async def test_a_blocked_event_loop_is_seen() -> None:
    metrics = Metrics()
    stop = ProcessMetrics(metrics, "example").watch_loop()
    time.sleep(1.2)

    async def sampled() -> bool:
        return metrics.registry.get_sample_value("punctual_event_loop_delay_seconds_count", {"service": "example"}) == 1

    await wait_until(sampled, seconds=5, what="a sample")
    stop()
    total = metrics.registry.get_sample_value("punctual_event_loop_delay_seconds_sum", {"service": "example"})
    assert total is not None
    assert total > 0.1
    memory = metrics.registry.get_sample_value("punctual_process_resident_memory_bytes", {"service": "example"})
    assert memory is not None
    assert memory > 1_000_000


def test_an_unknown_value_makes_no_new_series() -> None:
    metrics = Metrics()
    counter = metrics.bounded_counter("skips", "Skips.", "reason", ["OVERLAP"])
    counter.add("OVERLAP", 2)
    counter.add("something that a caller wrote")
    counts = {reason: metrics.registry.get_sample_value("punctual_skips_total", {"reason": reason}) for reason in
              ("OVERLAP", OTHER, "something that a caller wrote")}  # fmt: skip
    assert counts == {"OVERLAP": 2, OTHER: 1, "something that a caller wrote": None}


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND])
def test_calls_are_counted_by_method_and_code(code: grpc.StatusCode) -> None:
    metrics = Metrics()
    CallMetrics(metrics).observe("/punctual.v1.JobService/GetJob", code, 0.02)
    labels = {"method": "punctual.v1.JobService/GetJob"}
    assert metrics.registry.get_sample_value("punctual_rpc_handled_total", {**labels, "code": code.name}) == 1
    assert metrics.registry.get_sample_value("punctual_rpc_duration_seconds_bucket", {**labels, "le": "0.025"}) == 1
