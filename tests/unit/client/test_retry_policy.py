from __future__ import annotations

import pytest

from libs.client.retry_policy import RetryPolicy
from libs.common.errors import (
    AbortedError,
    FailedPreconditionError,
    InternalError,
    NotFoundError,
    PunctualError,
    ResourceExhaustedError,
    UnavailableError,
)

POLICY = RetryPolicy(initial_backoff=0.1, max_backoff=2.0)
AWAY = UnavailableError("NO_PRIMARY", "no primary")


def delay(error: PunctualError, *, failures: int = 1, remaining: float = 100.0, spread: float = 1.0) -> float | None:
    return POLICY.delay(error, failures=failures, remaining=remaining, spread=spread)


def test_backoff_doubles_up_to_its_bound() -> None:
    assert [delay(AWAY, failures=n) for n in (1, 2, 3, 4, 5, 6, 1000)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_half_of_a_backoff_is_random() -> None:
    assert [delay(AWAY, spread=spread) for spread in (0.0, 0.5, 1.0)] == pytest.approx([0.05, 0.075, 0.1])


def test_told_delay_is_waited_out_with_the_backoff_on_top() -> None:
    assert delay(UnavailableError("DRAINING", "later", retry_after_seconds=3)) == pytest.approx(3.1)
    assert delay(ResourceExhaustedError("RATE", "later", retry_after_seconds=3)) == pytest.approx(3.1)


def test_wait_that_reaches_past_the_deadline_is_not_begun() -> None:
    assert delay(ResourceExhaustedError("RATE", "later", retry_after_seconds=3), remaining=3.0) is None
    assert delay(AWAY, remaining=0.1) is None


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhaustedError("MAX_JOBS", "a quota: waiting does not help"),
        AbortedError("ETAG_MISMATCH", "read again first"),
        FailedPreconditionError("JOB_COMPLETED", "no"),
        NotFoundError("job", "x"),
        InternalError("INTERNAL", "no"),
    ],
)
def test_other_errors_are_final(error: PunctualError) -> None:
    assert delay(error) is None
