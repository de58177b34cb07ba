"""A caller that may reach loopback, and servers for it to reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from services.executor.adapters.http.target_caller import HttpTargetCaller
from tests.integration.executor.targets import Servers, open_caller


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield Servers(stack)


@pytest.fixture
async def caller() -> AsyncIterator[HttpTargetCaller]:
    async with open_caller("127.0.0.0/8") as caller:
        yield caller
