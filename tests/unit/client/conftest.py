from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from typer.testing import CliRunner, Result

from libs.client import PunctualClient, RetryPolicy
from libs.client.cli.app import build
from tests.unit.client.cli_values import Punctual
from tests.unit.client.fake_server import FakePunctual, running


@pytest.fixture
def fake() -> Iterator[FakePunctual]:
    fake = FakePunctual()
    with running(fake):
        yield fake


@pytest.fixture
async def client(fake: FakePunctual) -> AsyncIterator[PunctualClient]:
    quick = RetryPolicy(initial_backoff=0.002, max_backoff=0.01)
    async with PunctualClient(fake.address, org="demo", retry_policy=quick, deadline_seconds=2) as client:
        yield client


@pytest.fixture
def punctual(fake: FakePunctual) -> Punctual:
    app = build()

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
        settings = {"PUNCTUAL_ADDRESS": fake.address, "PUNCTUAL_ORG": "demo", **environment}
        return CliRunner().invoke(app, list(arguments), input=stdin, env=settings)

    return run
