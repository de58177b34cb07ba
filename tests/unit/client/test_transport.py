"""Tokens leave this machine encrypted only, unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from libs.client import BearerToken, Tls, TokenFile
from libs.client.transport import channel_credentials, is_local
from libs.common.errors import UnauthenticatedError


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:7400", "127.8.8.8:1", "localhost:7400", "[::1]:7400", "unix:/run/p.sock", "dns:///localhost:7400"],
)
def test_own_addresses_are_plaintext(address: str) -> None:
    assert is_local(address)
    assert channel_credentials(address, None) is None


@pytest.mark.parametrize(
    "address",
    [
        "punctual:7400",
        "10.0.0.1:7400",
        "0.0.0.0:7400",
        "localhost.evil.com:1",
        "dns://127.0.0.1/evil.com:1",
        "[fe80::1]:1",
    ],
)
def test_all_others_are_encrypted(address: str) -> None:
    assert not is_local(address)
    assert isinstance(channel_credentials(address, None), grpc.ChannelCredentials)


def test_caller_decides_otherwise() -> None:
    assert channel_credentials("punctual:7400", tls=False) is None
    assert channel_credentials("127.0.0.1:7400", tls=True) is not None
    with pytest.raises(FileNotFoundError):
        channel_credentials("punctual:7400", Tls(Path("/nowhere/ca.pem")))


def test_token_file_is_read_at_each_call(tmp_path: Path) -> None:
    path = tmp_path / "token"
    credentials = TokenFile(path)
    path.write_text("first\n")
    assert credentials.token() == "first"
    path.write_text("second\n")
    assert credentials.token() == "second"


@pytest.mark.parametrize("content", [b"", b"two words", "schlüssel".encode(), b"a\nb", b"\xff"])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UnauthenticatedError) as raised:
        TokenFile(path).token()
    assert raised.value.reason in {"TOKEN_MALFORMED", "TOKEN_UNREADABLE"}
    assert "words" not in raised.value.message


def test_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnauthenticatedError, match=str(tmp_path / "token")):
        TokenFile(tmp_path / "token").token()


def test_token_does_not_show_in_a_repr() -> None:
    assert "canary" not in repr(BearerToken("canary"))
