"""Secrets that a target echoes are masked, wherever they are cut."""

from __future__ import annotations

import pytest

from services.executor.domain.attempt import Header
from services.executor.domain.secret_mask import SecretMask

SECRET = "sk-live-0123456789"
MASK = SecretMask([Header("Authorization", f"Bearer {SECRET}", sensitive=True), Header("X-Plain", "plain-value-1")])


def test_a_secret_is_masked_with_and_without_its_scheme() -> None:
    assert MASK.text(f"got {SECRET} and Bearer {SECRET}") == "got " + "*" * 18 + " and " + "*" * 25


def test_what_is_not_sensitive_stays() -> None:
    assert MASK.bytes(b"plain-value-1 \xff\x00") == b"plain-value-1 \xff\x00"


def test_short_values_are_left_alone() -> None:
    assert SecretMask([Header("X-Key", "abc", sensitive=True)]).text("abcdef") == "abcdef"


def test_a_secret_that_json_escapes_is_masked_in_both_forms() -> None:
    mask = SecretMask([Header("X-Key", 'pa"ss"word', sensitive=True)])
    assert "word" not in mask.text('{"key": "pa\\"ss\\"word", "raw": pa"ss"word}')


@pytest.mark.parametrize("size", [1, 2, 5, 17, 18, 19, 1000])
def test_a_secret_across_pieces_is_masked_and_nothing_else_changes(size: int) -> None:
    body = (f"start {SECRET} middle {SECRET[:-1]}x Bearer {SECRET}" * 3).encode()
    stream = MASK.stream()
    pieces = [stream.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join(pieces) + stream.rest(cut=False) == MASK.bytes(body)


def test_a_body_that_breaks_off_inside_a_secret_is_given_as_it_came() -> None:
    stream = MASK.stream()
    assert stream.feed(b"abc sk-live") + stream.rest(cut=False) == b"abc sk-live"
