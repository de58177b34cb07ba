"""The scheduler that tests of use cases break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.scheduler_world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A scheduler over stores in memory; what a test wanted to happen in between must have happened."""
    world = World()
    yield world
    world.check_happened()
