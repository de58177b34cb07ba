"""Target addresses: what parsers disagree about is refused (semantics.md B2, row 29)."""

from __future__ import annotations

import pytest

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.target_host import check_host
from services.scheduler.domain.target_url import TargetUrl, split_target_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com/v1?x=1&y=%20", TargetUrl("https", "api.example.com", 443)),
        ("http://api.example.com", TargetUrl("http", "api.example.com", 80)),
        ("HTTPS://API.Example.COM:8443/", TargetUrl("https", "api.example.com", 8443)),
        ("http://a_b.example.com./", TargetUrl("http", "a_b.example.com.", 80)),
        ("http://[2001:db8::1]:81/x", TargetUrl("http", "2001:db8::1", 81)),
        # Which addresses may be dialled is decided when they are: these are well-formed.
        ("http://127.0.0.1/", TargetUrl("http", "127.0.0.1", 80)),
        ("http://2130706433/", TargetUrl("http", "2130706433", 80)),
        ("http://x:65535/", TargetUrl("http", "x", 65_535)),
    ],
)
def test_a_plain_address_is_taken_apart(url: str, expected: TargetUrl) -> None:
    assert split_target_url(url) == expected


def test_limits_are_kept_by_host_and_port() -> None:
    assert split_target_url("https://A.example.com/x").host_port == "a.example.com:443"
    assert split_target_url("http://[::1]/").host_port == "[::1]:80"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "//api.example.com/v1",
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "javascript://api.example.com/",
        "http:api.example.com",
        "http:/api.example.com",
        "http://",
        "http:///path",
        "http://?x",
        "http://user@api.example.com/",
        "http://user:pw@api.example.com/",
        "http://@api.example.com/",
        "http://api.example.com#@evil.example.com/",
        "http://api.example.com/#fragment",
        "http://api.example.com/x#",
        "http://127.0.0.1\\@api.example.com/",
        "http://api.example.com\\.evil.example.com/",
        "http:\\\\api.example.com/",
        "http://api.exa\tmple.com/",
        "http://api.example.com/a b",
        " http://api.example.com/",
        "http://api.example.com/\n",
        "http://api.example.com/\r\nHost: evil",
        "http://api.example.com/\x00",
        "http://api.example.com/ü",
        "http://münchen.example.com/",
        "http://①②⑦.0.0.1/",
        "http://api%2eexample.com/",
        "http://%31/",
        "http://api..example.com/",
        "http://.example.com/",
        "http://-a.example.com/",
        "http://api.example.com:0/",
        "http://api.example.com:65536/",
        "http://api.example.com:80a/",
        "http://api.example.com:-1/",
        "http://api.example.com:80:80/",
        "http://[::1/",
        "http://::1/",
        "http://[::1%25eth0]/",
        "http://[evil.example.com]/",
        "http://" + "a" * 64 + ".example.com/",
        "http://a,b/",
        "http://a;b/",
        "http://api.example.com/" + "x" * 2048,
    ],
)
def test_what_parsers_disagree_about_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        split_target_url(url, "target.url")
    (violation,) = raised.value.violations
    assert (violation.field, violation.reason) == ("target.url", "INVALID_URL")


@pytest.mark.parametrize(
    ("host", "stored"),
    [("API.Example.com.:443", "api.example.com:443"), ("[2001:db8::1]:80", "[2001:db8::1]:80"), ("a:1", "a:1")],
)
def test_a_host_with_its_port_is_stored_in_one_form(host: str, stored: str) -> None:
    assert check_host(host) == stored


@pytest.mark.parametrize(
    "host", ["a", "a:0", "a:65536", "a:443?x:80", "a:443/:80", "a:443#:80", "u@a:80", "::1:80", "a:\u0663", "a:80 "]
)
def test_what_is_no_host_with_a_port_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_host(host)
    assert raised.value.reason == "INVALID_HOST"
