"""Reads what a target tells of its rate limit, in the dialects that are spoken.

    OpenAI       x-ratelimit-remaining-requests / -tokens, x-ratelimit-reset-requests / -tokens: "1s", "6m0s", "120ms"
    Anthropic    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{remaining,reset}: RFC 3339
    IETF         RateLimit: "default";r=0;t=30, or limit=10, remaining=0, reset=30; RateLimit-Remaining / -Reset
    X-RateLimit  X-RateLimit-Remaining / -Reset: seconds, or an epoch in seconds or milliseconds
    all          Retry-After: seconds or an HTTP date; retry-after-ms: milliseconds

The first family that says something wins, in this order. Nonsense is read as nothing told: a target's odd header must
not fail an attempt. Of several windows the one with the least left counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from services.executor.domain.answer import RateLimitObservation

MAX_WAIT = timedelta(days=7)
"""Longer waits are taken as this long: a typing error of a target must not park a job for years."""

_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)")
_MAX_GO_CHARS = 64
"""Longer texts are no durations: to find that out takes the square of their length, and a header may have 8 KiB."""
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_EPOCH_SECONDS_FROM = 1e9
_EPOCH_MILLIS_FROM = 1e12
_ITEM = re.compile(r"(?<![a-z])(remaining|reset|r|t)\s*=\s*(\d{1,18}(?:\.\d{1,18})?)(?![\d.])")
_ANTHROPIC_TOKENS = ("tokens", "input-tokens", "output-tokens")


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long the target asked to wait, never negative; None when it did not. Names are given in lower case."""
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return min(millis / 1000, MAX_WAIT.total_seconds())
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return min(seconds, MAX_WAIT.total_seconds())
    if not value:
        return None
    try:
        instant = parsedate_to_datetime(value)
        # A date with the zone "-0000" comes back naive; HTTP dates are GMT.
        instant = instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return min(max((instant - now).total_seconds(), 0.0), MAX_WAIT.total_seconds())


def observe_rate_limit(headers: Mapping[str, str], now: datetime) -> RateLimitObservation | None:
    """Return what the headers tell, or None when they tell nothing. Names are given in lower case."""
    names = " ".join(headers)
    if "rate" not in names and "retry" not in names:
        return None
    for read in (_openai, _anthropic, _ietf, _x_ratelimit):
        observation = read(headers, now)
        if observation is not None:
            return observation
    wait = retry_after_seconds(headers, now)
    if wait is None:
        return None
    return RateLimitObservation("retry-after", reset_time=now + timedelta(seconds=wait))


def _openai(headers: Mapping[str, str], now: datetime) -> RateLimitObservation | None:
    requests = _count(headers.get("x-ratelimit-remaining-requests"))
    tokens = _count(headers.get("x-ratelimit-remaining-tokens"))
    if requests < 0 and tokens < 0:
        return None
    resets = {
        "requests": _after(now, _go_duration(headers.get("x-ratelimit-reset-requests"))),
        "tokens": _after(now, _go_duration(headers.get("x-ratelimit-reset-tokens"))),
    }
    return RateLimitObservation("openai", requests, tokens, _decisive_reset(requests, tokens, resets))


def _anthropic(headers: Mapping[str, str], now: datetime) -> RateLimitObservation | None:
    def remaining(window: str) -> int:
        return _count(headers.get(f"anthropic-ratelimit-{window}-remaining"))

    def reset(window: str) -> datetime | None:
        return _instant(headers.get(f"anthropic-ratelimit-{window}-reset"), now)

    requests = remaining("requests")
    told = [(remaining(window), window) for window in _ANTHROPIC_TOKENS if remaining(window) >= 0]
    tokens, window = min(told, default=(-1, "tokens"))
    if requests < 0 and tokens < 0:
        return None
    resets = {"requests": reset("requests"), "tokens": reset(window)}
    return RateLimitObservation("anthropic", requests, tokens, _decisive_reset(requests, tokens, resets))


def _ietf(headers: Mapping[str, str], now: datetime) -> RateLimitObservation | None:
    windows: list[tuple[int, float | None]] = []
    for part in re.split(r",(?=\s*\")", headers.get("ratelimit", "")):
        items = {key: float(value) for key, value in _ITEM.findall(part)}
        remaining = items.get("r", items.get("remaining"))
        if remaining is not None:
            windows.append((int(remaining), items.get("t", items.get("reset"))))
    lone = _count(headers.get("ratelimit-remaining"))
    if lone >= 0:
        windows.append((lone, _number(headers.get("ratelimit-reset"))))
    if not windows:
        return None
    remaining, seconds = min(windows, key=lambda window: window[0])
    return RateLimitObservation("ietf", remaining, reset_time=_after(now, seconds))


def _x_ratelimit(headers: Mapping[str, str], now: datetime) -> RateLimitObservation | None:
    for prefix in ("x-ratelimit", "x-rate-limit"):
        remaining = _count(headers.get(f"{prefix}-remaining"))
        if remaining >= 0:
            return RateLimitObservation(
                "x-ratelimit", remaining, reset_time=_instant(headers.get(f"{prefix}-reset"), now)
            )
    return None


def _decisive_reset(requests: int, tokens: int, resets: Mapping[str, datetime | None]) -> datetime | None:
    """Return the reset of what is used up; of both, the later one; with room in both, that of the requests."""
    used_up = [name for name, left in (("requests", requests), ("tokens", tokens)) if left == 0]
    instants = [instant for name in used_up or ("requests", "tokens") if (instant := resets[name]) is not None]
    if not instants:
        return None
    return max(instants) if used_up else instants[0]


def _count(text: str | None) -> int:
    number = _number(text)
    return -1 if number is None else int(number)


def _number(text: str | None) -> float | None:
    """Return a plain non-negative decimal number, or None."""
    if text is None or not re.fullmatch(r"\s*\d{1,18}(\.\d{1,18})?\s*", text, re.ASCII):
        return None
    return float(text)


def _go_duration(text: str | None) -> float | None:
    """Return the seconds of "6m0s"; a bare number counts as seconds."""
    plain = _number(text)
    if plain is not None or not text or len(text) > _MAX_GO_CHARS:
        return plain
    parts = _GO_DURATION.findall(text.strip())
    if "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def _instant(text: str | None, now: datetime) -> datetime | None:
    """Return an instant from RFC 3339, from an epoch in seconds or milliseconds, or from seconds to wait."""
    number = _number(text)
    if number is not None:
        if number >= _EPOCH_MILLIS_FROM:
            return _bounded(now, number / 1000 - now.timestamp())
        if number >= _EPOCH_SECONDS_FROM:
            return _bounded(now, number - now.timestamp())
        return _after(now, number)
    try:
        instant = datetime.fromisoformat(text) if text else None
    except ValueError:
        return _after(now, _go_duration(text))
    if instant is None:
        return None
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return _bounded(now, (aware - now).total_seconds())


def _after(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else _bounded(now, seconds)


def _bounded(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=min(max(seconds, 0.0), MAX_WAIT.total_seconds()))
