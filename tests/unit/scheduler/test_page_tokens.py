"""Tokens of pages: what is none of ours is refused, whatever is in it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from punctual.v1 import execution_service_pb2 as pb

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, read_page

KINDS = (int, str)
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize("key", [[0, "01K-1"], [FIRST, ""], [LAST, "01K-m1"]])
def test_a_token_gives_its_key_back(key: list[Any]) -> None:
    request = pb.ListExecutionsRequest(page_token=encode_page_token(key, pb.ListExecutionsRequest()))
    assert decode_page_token(request, KINDS) == key


@pytest.mark.parametrize(
    "key", [[FIRST - 1, "x"], [LAST + 1, "x"], [0, "\ud800"], [0], [0, 1], ["x", "x"], [0, "x", 1]]
)
def test_a_key_that_was_made_by_hand_is_refused(key: list[Any]) -> None:
    request = pb.ListExecutionsRequest(page_token=encode_page_token(key, pb.ListExecutionsRequest()))
    with pytest.raises(InvalidArgumentError) as raised:
        decode_page_token(request, KINDS)
    assert raised.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "1", "null", "[", json.dumps({"a": 1})])
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    request = pb.ListExecutionsRequest(page_token=base64.urlsafe_b64encode(text.encode()).decode())
    with pytest.raises(InvalidArgumentError) as raised:
        decode_page_token(request, KINDS)
    assert raised.value.reason == "INVALID_PAGE_TOKEN"


ITEMS = [f"{number:04d}" for number in range(350)]


@pytest.mark.parametrize(
    ("size", "bytes_each", "expected", "reads"),
    [
        (50, 0, 50, [51]),
        (100, 0, 100, [101]),
        (250, 0, 250, [101, 101, 51]),
        (1000, 0, 350, [101, 101, 101, 101]),
        # What fits no more is not read.
        (1000, 100_000, 31, [101]),
        (1000, 25_000, 125, [101, 101]),
    ],
)
async def test_a_page_is_read_some_items_at_a_time(size: int, bytes_each: int, expected: int, reads: list[int]) -> None:
    asked: list[int] = []

    async def read(after: str, limit: int) -> list[str]:
        asked.append(limit)
        return [item for item in ITEMS if item > after][:limit]

    def write(item: str) -> pb.ListExecutionsRequest:
        return pb.ListExecutionsRequest(job_id=item, project_id="x" * bytes_each)

    found: list[str] = []
    after = ""
    while after or not found:
        page, after = await read_page(read, write, str, after=after, size=size)
        if not found:
            assert (len(page), asked) == (expected, reads)
        found += [one.job_id for one in page]
    assert found == ITEMS
