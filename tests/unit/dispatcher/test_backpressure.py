"""What may come in and go out, by how full the buffers are."""

import pytest

from services.dispatcher.domain.backpressure import Bounds

BOUNDS = Bounds(max_held=1_000, max_stream_backlog=200, acquire_batch=400, deliver_batch=50)


@pytest.mark.parametrize(
    ("held", "backlog", "limit"),
    [
        (0, 0, 400),
        (700, 0, 300),
        (900, 0, 100),
        (901, 0, 0),  # less than a quarter of a batch is free
        (1_000, 0, 0),
        (0, 199, 400),
        (0, 200, 400),  # the stream is full: one batch is held, so that orgs can take turns
        (300, 200, 100),
        (301, 200, 0),
        (900, 200, 0),
        (0, None, 400),  # Redis is away: acquiring goes on, for it materializes what the poll path runs
        (1_000, None, 0),
    ],
)
def test_acquire_limit(held: int, backlog: int | None, limit: int) -> None:
    assert BOUNDS.acquire_limit(held, backlog) == limit


@pytest.mark.parametrize(("backlog", "limit"), [(0, 50), (170, 30), (200, 0), (300, 0), (None, 50)])
def test_deliver_limit(backlog: int | None, limit: int) -> None:
    assert BOUNDS.deliver_limit(backlog) == limit


def test_tiny_bounds_still_let_something_through() -> None:
    assert Bounds(max_held=1, max_stream_backlog=1, acquire_batch=1).acquire_limit(0, 0) == 1
