"""Traceparent strings, and silence without an exporter."""

import pytest
from opentelemetry import trace

from libs.common.tracing import (
    configure_tracing,
    find_tracer,
    format_trace_parent,
    parse_trace_parent,
    trace_id_of,
    tracing_wanted,
)

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _no_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


def test_trace_parent_survives_the_round_trip() -> None:
    context = parse_trace_parent(PARENT)
    assert context is not None
    assert format_trace_parent(trace.get_current_span(context)) == PARENT


@pytest.mark.parametrize(
    "value", ["", "nonsense", PARENT.replace("00-", "ff-", 1), PARENT[:-1], f"00-{'0' * 32}-00f067aa0ba902b7-01"]
)
def test_unreadable_trace_parent_starts_a_new_trace(value: str) -> None:
    assert parse_trace_parent(value) is None


def test_no_span_has_no_trace_parent() -> None:
    assert format_trace_parent() == ""


def test_nothing_is_set_up_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tracing_wanted()
    configure_tracing("example")()
    assert type(trace.get_tracer_provider()).__module__.startswith("opentelemetry.trace")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    assert tracing_wanted()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not tracing_wanted()


def test_no_tracer_where_nobody_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_tracer("punctual") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    assert find_tracer("punctual") is not None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert find_tracer("punctual") is None


@pytest.mark.parametrize(("value", "found"), [(PARENT, PARENT[3:35]), ("", ""), ("nonsense", "")])
def test_the_trace_id_of_a_traceparent(value: str, found: str) -> None:
    assert trace_id_of(value) == found
