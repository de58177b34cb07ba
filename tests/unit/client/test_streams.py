"""Watches that outlive their streams, and downloads that come as a whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from punctual.v1.execution_pb2 import Execution, Response
from punctual.v1.execution_service_pb2 import DownloadResponseResponse, WatchExecutionsResponse

from libs.client import PunctualClient, request_id_of, watching
from libs.common.errors import NotFoundError, OutOfRangeError, PunctualError, UnauthenticatedError, UnavailableError
from tests.unit.client.fake_server import HOLD, FakePunctual

AWAY = UnavailableError("DRAINING", "draining")


def change(number: int) -> WatchExecutionsResponse:
    return WatchExecutionsResponse(execution=Execution(execution_id=f"e{number}"), resume_token=f"t{number}")


def heartbeat(number: int) -> WatchExecutionsResponse:
    return WatchExecutionsResponse(resume_token=f"t{number}")


async def seen(changes: AsyncIterator[WatchExecutionsResponse], count: int) -> list[str]:
    found = []
    async for item in changes:
        found.append(item.execution.execution_id)
        if len(found) == count:
            break
    return found


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_watch_continues_at_the_last_token_after_a_break_and_after_a_clean_end(
    fake: FakePunctual, client: PunctualClient
) -> None:
    fake.script(
        "WatchExecutions",
        [change(1), heartbeat(2), AWAY],
        [AWAY],
        [change(3)],
        [change(4), HOLD],
    )
    async with aclosing(client.executions.watch(job_id="j", states=[Execution.STATE_FAILED])) as changes:
        assert await seen(changes, 3) == ["e1", "e3", "e4"]
    requests = fake.requests("WatchExecutions")
    assert [request.resume_token for request in requests] == ["", "t2", "t2", "t3"]
    assert {(request.job_id, tuple(request.states)) for request in requests} == {("j", (Execution.STATE_FAILED,))}
    await until(lambda: len(fake.ended) == 4)


async def test_watch_begins_where_the_caller_left_off(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("WatchExecutions", [AWAY], [change(8)])
    async with aclosing(client.executions.watch(resume_token="t7")) as changes:
        assert await seen(changes, 1) == ["e8"]
    assert [request.resume_token for request in fake.requests("WatchExecutions")] == ["t7", "t7"]


async def test_silent_stream_is_replaced(
    fake: FakePunctual, client: PunctualClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.05)
    fake.script("WatchExecutions", [change(1), HOLD], [change(2), HOLD])
    async with aclosing(client.executions.watch()) as changes:
        assert await seen(changes, 2) == ["e1", "e2"]


@pytest.mark.parametrize("error", [OutOfRangeError("RESUME_TOKEN_TOO_OLD", "gone"), NotFoundError("job", "j")])
async def test_watch_raises_what_reconnecting_does_not_mend(
    fake: FakePunctual, client: PunctualClient, error: PunctualError
) -> None:
    fake.script("WatchExecutions", [change(1), error])
    with pytest.raises(type(error)) as raised:
        await seen(client.executions.watch(), 2)
    assert raised.value.reason == error.reason
    assert request_id_of(raised.value) == fake.seen[0].metadata["x-request-id"]


async def test_watch_goes_on_with_a_renewed_credential(fake: FakePunctual, client: PunctualClient) -> None:
    expired = UnauthenticatedError("TOKEN_EXPIRED", "the token has expired")
    fake.script("WatchExecutions", [change(1), expired], [change(2), expired], [expired])
    changes = client.executions.watch()
    assert await seen(changes, 2) == ["e1", "e2"]
    with pytest.raises(UnauthenticatedError):
        await anext(changes)
    assert len(fake.seen) == 3, "one try with what the credential is now"


async def test_watch_of_an_absent_server_gives_up_by_the_deadline(unused_tcp_port: int) -> None:
    async with PunctualClient(f"127.0.0.1:{unused_tcp_port}", deadline_seconds=0.1) as client:
        with pytest.raises(UnavailableError):
            await seen(client.executions.watch(), 1)


async def test_outage_is_tolerated_for_a_while_only(
    fake: FakePunctual, client: PunctualClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", 0.05)
    fake.script("WatchExecutions", [change(1)])
    with pytest.raises(UnavailableError) as raised:
        await seen(client.executions.watch(), 2)
    assert raised.value.reason == "WATCH_ENDED"
    assert len(fake.seen) > 2


def part(chunk: bytes, response: Response | None = None) -> DownloadResponseResponse:
    return DownloadResponseResponse(chunk=chunk, response=response)


async def test_download_yields_the_bytes(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("DownloadResponse", [AWAY], [part(b"ab", Response(status_code=200)), part(b""), part(b"c")])
    assert [chunk async for chunk in client.executions.download("e")] == [b"ab", b"c"]
    assert len(fake.seen) == 2, "what failed before its first part is repeated"


async def test_download_that_breaks_is_not_repeated(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("DownloadResponse", [part(b"ab"), AWAY])
    chunks = client.executions.download("e")
    assert await anext(chunks) == b"ab"
    with pytest.raises(UnavailableError):
        await anext(chunks)
    assert len(fake.seen) == 1


async def test_download_that_stalls_ends(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("DownloadResponse", [part(b"ab"), HOLD])
    hasty = client.with_deadline(0.1)
    with pytest.raises(UnavailableError, match="nothing") as raised:
        _ = [chunk async for chunk in hasty.executions.download("e")]
    assert raised.value.reason == "DEADLINE_EXCEEDED"
    await until(lambda: fake.ended == ["DownloadResponse"])


async def test_left_download_ends_the_call(fake: FakePunctual, client: PunctualClient) -> None:
    fake.script("DownloadResponse", [part(b"ab"), HOLD])
    async with aclosing(client.executions.download("e")) as chunks:
        assert await anext(chunks) == b"ab"
    await until(lambda: fake.ended == ["DownloadResponse"])


async def test_file_appears_when_it_is_complete(fake: FakePunctual, client: PunctualClient, tmp_path: Path) -> None:
    target = tmp_path / "answer.json"
    fake.script("DownloadResponse", [part(b"ab", Response(status_code=200, content_type="text/plain")), part(b"c")])
    description = await client.executions.download_to("e", target)
    assert target.read_bytes() == b"abc"
    assert (description.status_code, description.content_type) == (200, "text/plain")
    fake.script("DownloadResponse", [part(b"zz"), AWAY])
    with pytest.raises(UnavailableError):
        await client.executions.download_to("e", target)
    assert [path.name for path in tmp_path.iterdir()] == ["answer.json"]
    assert target.read_bytes() == b"abc"
