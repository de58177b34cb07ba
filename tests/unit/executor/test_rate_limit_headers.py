"""The dialects of rate-limit headers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from services.executor.domain.answer import RateLimitObservation
from services.executor.domain.rate_limit_headers import MAX_WAIT, observe_rate_limit, retry_after_seconds

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def in_seconds(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "Sun, 01 Mar 2026 12:01:00 GMT"}, 60),
        ({"retry-after": "Sun, 01 Mar 2026 12:01:00 -0000"}, 60),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "99999999999"}, MAX_WAIT.total_seconds()),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-limit": "60"}, None),
        ({"retry-after": "20"}, RateLimitObservation("retry-after", reset_time=in_seconds(20))),
        (
            {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984",
             "x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"},
            RateLimitObservation("openai", 59, 149984, in_seconds(1)),
        ),
        (
            {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "0",
             "x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"},
            RateLimitObservation("openai", 59, 0, in_seconds(360)),
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"},
            RateLimitObservation("openai", 0, -1, in_seconds(0.12)),
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h2m3.5s"},
            RateLimitObservation("openai", 0, -1, in_seconds(3723.5)),
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "rubbish"},
            RateLimitObservation("openai", 0, -1, None),
        ),
        (
            {"anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-tokens-remaining": "39000",
             "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:30Z",
             "anthropic-ratelimit-tokens-reset": "2026-03-01T12:01:00Z"},
            RateLimitObservation("anthropic", 49, 39000, in_seconds(30)),
        ),
        (
            {"anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-input-tokens-remaining": "0",
             "anthropic-ratelimit-output-tokens-remaining": "8000",
             "anthropic-ratelimit-input-tokens-reset": "2026-03-01T12:02:00Z"},
            RateLimitObservation("anthropic", 49, 0, in_seconds(120)),
        ),
        ({"ratelimit": '"default";r=0;t=30'}, RateLimitObservation("ietf", 0, reset_time=in_seconds(30))),
        (
            {"ratelimit": '"burst";r=50;t=1, "daily";r=3;t=600'},
            RateLimitObservation("ietf", 3, reset_time=in_seconds(600)),
        ),
        ({"ratelimit": "limit=100, remaining=7, reset=50"}, RateLimitObservation("ietf", 7, reset_time=in_seconds(50))),
        (
            {"ratelimit-limit": "10", "ratelimit-remaining": "2", "ratelimit-reset": "9"},
            RateLimitObservation("ietf", 2, reset_time=in_seconds(9)),
        ),
        (
            {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "30"},
            RateLimitObservation("x-ratelimit", 5, reset_time=in_seconds(30)),
        ),
        (
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 45)},
            RateLimitObservation("x-ratelimit", 0, reset_time=in_seconds(45)),
        ),
        (
            {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str((int(NOW.timestamp()) + 45) * 1000)},
            RateLimitObservation("x-ratelimit", 0, reset_time=in_seconds(45)),
        ),
        ({"x-ratelimit-remaining": "many"}, None),
        ({"ratelimit": "???"}, None),
        ({"ratelimit": "r=" + "9" * 400 + ";t=1"}, None),
        ({"ratelimit": "r=3;t=" + "9" * 400}, RateLimitObservation("ietf", 3)),
    ],
)  # fmt: skip
def test_families(headers: dict[str, str], expected: RateLimitObservation | None) -> None:
    assert observe_rate_limit(headers, NOW) == expected


def test_a_long_header_is_read_in_no_time() -> None:
    digits = "1" * 32_000
    headers = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": digits, "ratelimit": f"r={digits}"}
    began = time.perf_counter()
    assert observe_rate_limit(headers, NOW) == RateLimitObservation("openai", 1)
    assert time.perf_counter() - began < 0.5
