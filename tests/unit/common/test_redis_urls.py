"""Redis URLs: the three ways in which Redis is set up."""

import pytest

from libs.common.streams.urls import RedisAddress, parse_redis_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress("single", (("localhost", 6379),), tls=False)),
        ("redis://localhost:7000/3", RedisAddress("single", (("localhost", 7000),), tls=False, db=3)),
        ("redis://[::1]:7000", RedisAddress("single", (("::1", 7000),), tls=False)),
        (
            "rediss://user:p%40ss@h:1",
            RedisAddress("single", (("h", 1),), tls=True, username="user", password="p@ss"),
        ),
        (
            "redis+sentinel://:pw@a:1,b/main/2",
            RedisAddress("sentinel", (("a", 1), ("b", 26379)), tls=False, db=2, service="main", password="pw"),
        ),
        ("redis+cluster://a:1,b:2", RedisAddress("cluster", (("a", 1), ("b", 2)), tls=False)),
        ("rediss+cluster://a", RedisAddress("cluster", (("a", 6379),), tls=True)),
    ],
)
def test_url_is_understood(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://canary@h",
        "redis+other://h",
        "redis://:canary@",
        "redis://a,b",
        "redis://a:canary",
        "redis://a/canary",
        "redis+sentinel://a:1",
        "redis+cluster://a/1",
    ],
)
def test_bad_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_redis_url(url)
    assert "canary" not in str(refusal.value)


def test_password_is_not_shown() -> None:
    assert "canary" not in repr(parse_redis_url("redis://user:canary@h"))
