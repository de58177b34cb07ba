"""The grammar of addresses, and where redirects lead."""

from __future__ import annotations

import pytest

from services.executor.domain.target_url import BadUrlError, parse_target_url, redirect_target


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)", "//example.com/",
        "http://user@example.com/", "http://user:pw@example.com/", "http://127.0.0.1\\@example.com/",
        "http://example.com\\x", "http://exa\tmple.com/", "http://example.com/\n", " http://example.com/",
        "http://example.com/ x", "http://example.com/#fragment", "http://", "http:///path", "http://:80/",
        "http://example.com:0/", "http://example.com:99999/", "http://example.com:x/", "http://[::1", "http://[fe80::1%25e]/",
        "http://example.com/" + "a" * 9000,
    ],
)  # fmt: skip
def test_addresses_that_parsers_disagree_about_are_refused(url: str) -> None:
    with pytest.raises(BadUrlError):
        parse_target_url(url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://example.com", ("http", "example.com", 80)),
        ("HTTPS://Example.COM./a?b=c", ("https", "example.com", 443)),
        ("http://[::1]:8080/", ("http", "::1", 8080)),
    ],
)
def test_an_address_has_an_origin(url: str, origin: tuple[str, str, int]) -> None:
    assert parse_target_url(url).origin == origin


@pytest.mark.parametrize(
    ("status", "location", "expected"),
    [
        (307, "/other", "https://example.com/other"),
        (308, "https://other.example/x", "https://other.example/x"),
        (307, "next#part", "https://example.com/a/next"),
        (301, "/other", None),
        (302, "/other", None),
        (303, "/other", None),
        (200, "/other", None),
        (307, None, None),
        (307, "", None),
    ],
)
def test_only_redirects_that_keep_the_post_are_followed(
    status: int, location: str | None, expected: str | None
) -> None:
    target = redirect_target(parse_target_url("https://example.com/a/b"), status, location)
    assert (target.text if target else None) == expected


@pytest.mark.parametrize("location", ["http://example.com/", "https://u@example.com/", "https://[x/", "https://a\\b/"])
def test_redirects_to_bad_addresses_are_errors(location: str) -> None:
    with pytest.raises(BadUrlError):
        redirect_target(parse_target_url("https://example.com/"), 307, location)
