"""A job's request headers: their grammar, their sizes, what is ours, and what is a secret."""

from __future__ import annotations

import pytest

from services.scheduler.domain.job import Header
from services.scheduler.domain.request_headers import RESERVED, check_headers, with_sensitivity


def found(*headers: Header) -> list[tuple[str, str]]:
    return [(violation.field, violation.reason) for violation in check_headers(headers, "h")]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ü", "a\x00", "(a)", "x" * 257, "a\n"])
def test_a_name_is_a_token(name: str) -> None:
    assert found(Header("X-A", "v"), Header(name, "v")) == [("h[1].name", "INVALID_HEADER_NAME")]


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nX-B: c", "a\x00b", "\x7f", "\x1b", "日", "v\n"])
def test_a_value_holds_no_control_character(value: str) -> None:
    assert found(Header("X-A", value)) == [("h[0].value", "INVALID_HEADER_VALUE")]


def test_a_character_that_no_header_can_hold_is_not_called_a_control_character_alone() -> None:
    (violation,) = check_headers([Header("X-A", "日")], "h")
    assert "Latin-1" in violation.description


@pytest.mark.parametrize(
    "name", [*sorted(RESERVED), "Host", "Content-LENGTH", "Punctual-Attempt", "webhook-id", "Proxy-X", "TraceParent"]
)
def test_names_that_are_ours_are_refused(name: str) -> None:
    assert found(Header(name, "v")) == [("h[0].name", "RESERVED_HEADER")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("Authorization", "Bearer x"), ("X-A", ""), ("x_y!#$%&'*+.^`|~", "a\tb"), ("X-L", "\xe9"), ("Hostname", "v")],
)
def test_plain_headers_pass(name: str, value: str) -> None:
    assert found(Header(name, value), Header(name, value)) == []


def test_sizes_are_bounded() -> None:
    assert found(*[Header("X-A", "v")] * 64) == []
    assert found(*[Header("X-A", "v")] * 65) == [("h", "TOO_MANY_HEADERS")]
    assert found(Header("X-A", "v" * (32 * 1024 - 3))) == []
    assert found(Header("X-A", "v" * (32 * 1024 - 2))) == [("h", "HEADERS_TOO_LARGE")]


@pytest.mark.parametrize(
    "name", ["Authorization", "COOKIE", "x-api-key", "X-My-Secret", "my-token-2", "apikey", "X-Password", "Credentials"]
)
def test_names_of_secrets_are_sensitive_whatever_the_caller_says(name: str) -> None:
    assert with_sensitivity(Header(name, "v")).sensitive


def test_a_caller_may_make_any_header_a_secret_and_others_stay_plain() -> None:
    assert with_sensitivity(Header("X-A", "v", sensitive=True)).sensitive
    assert not with_sensitivity(Header("X-A", "v")).sensitive
    assert with_sensitivity(Header("X-A", "v")).value == "v"
