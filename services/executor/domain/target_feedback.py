"""Reads an attempt's end for what it says about its host: is it well, does it ask to be left alone, and how long.

| the attempt's end | health | left alone until |
|---|---|---|
| 2xx, 3xx, 4xx | healthy | the reset, if its headers say that nothing is left |
| 429 | healthy | Retry-After, else the reset, else the backoff of the gate |
| 5xx | failed | the reset, if its headers say that nothing is left |
| no address, no connection, no TLS | failed | - |
| out of time, connection lost, no HTTP | failed | - |
| aborted, refused by the guard, our own fault | says nothing | - |
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.executor.domain.answer import RateLimitObservation
from services.executor.domain.gate_values import Feedback, Health, to_micros
from services.executor.domain.report import CallResult, Result

MAX_CLOSURE = timedelta(hours=1)
"""The longest time that one answer keeps everybody away; then it is asked again."""

_NOT_REACHED = frozenset({"DNS_FAILED", "CONNECT_FAILED", "TLS_FAILED"})
_OUR_FAULT = frozenset({"EXECUTOR_FAILED", "EXECUTOR_STOPPED"})
_TOO_MANY_REQUESTS = 429


def feedback_of(call: CallResult | None, now: datetime) -> Feedback:
    """Return what an attempt's end says; None: it was aborted."""
    if call is None:
        return Feedback()
    if call.result is not Result.ANSWERED:
        return Feedback(_health_without_answer(call))
    limited = call.status_code == _TOO_MANY_REQUESTS
    until = _asked_until(call, now) if limited else _used_up_until(call.rate_limit)
    return Feedback(
        Health.FAILED if call.status_code >= 500 else Health.HEALTHY,
        limited=limited,
        succeeded=200 <= call.status_code <= 299,
        close_until=to_micros(min(until, now + MAX_CLOSURE)) if until is not None and until > now else 0,
    )


def _health_without_answer(call: CallResult) -> Health:
    match call.result:
        case Result.TIMED_OUT | Result.CONNECT_TIMED_OUT:
            return Health.FAILED
        case Result.NO_ANSWER if call.error_reason not in _OUR_FAULT:
            return Health.FAILED
        case Result.NOT_SENT if call.error_reason in _NOT_REACHED:
            return Health.FAILED
        case _:
            return Health.UNKNOWN


def _asked_until(call: CallResult, now: datetime) -> datetime | None:
    if call.retry_after is not None:
        return now + timedelta(seconds=call.retry_after)
    return call.rate_limit.reset_time if call.rate_limit else None


def _used_up_until(observation: RateLimitObservation | None) -> datetime | None:
    if observation is None or 0 not in (observation.remaining_requests, observation.remaining_tokens):
        return None
    return observation.reset_time
