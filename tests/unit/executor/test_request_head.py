"""The head of a request is what its lines say and never more, wherever their values come from."""

from __future__ import annotations

import pytest

from services.executor.domain.request_headers import BadHeaderError, request_head

START = "POST /v1 HTTP/1.1\r\nHost: api.example\r\n"


def test_the_head_holds_the_lines_in_order_and_the_length() -> None:
    head = request_head(START, [("X-A", "one\ttwo"), ("X-B", "drei ☕")], 17)
    assert head.decode() == f"{START}X-A: one\ttwo\r\nX-B: drei ☕\r\nContent-Length: 17\r\n\r\n"


@pytest.mark.parametrize("control", [chr(code) for code in (*range(0x09), *range(0x0A, 0x20), 0x7F)])
@pytest.mark.parametrize("place", ["start", "name", "value"])
def test_a_control_character_anywhere_is_refused(place: str, control: str) -> None:
    start = START.replace("/v1", f"/v1{control}") if place == "start" else START
    name = f"X{control}-A" if place == "name" else "X-A"
    value = f"v{control}w" if place == "value" else "vw"
    with pytest.raises(BadHeaderError):
        request_head(start, [(name, value)], 0)


@pytest.mark.parametrize(
    "value", ["v\r\nX-Injected: yes", "v\nX-Injected: yes", "v\r\n\r\nPOST /other HTTP/1.1", "\r\n"]
)
def test_a_line_that_would_become_more_than_one_is_refused(value: str) -> None:
    with pytest.raises(BadHeaderError):
        request_head(START, [("traceparent", value)], 0)
