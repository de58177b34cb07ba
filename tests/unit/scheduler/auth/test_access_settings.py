"""Settings that would be open by mistake do not start."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.scheduler.access_settings import AccessSettings, is_loopback
from tests.support.certificates import Authority

SECRET = "x" * 32


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:7400", True),
        ("127.8.9.1:0", True),
        ("[::1]:7400", True),
        ("localhost:7400", True),
        ("0.0.0.0:7400", False),
        ("[::]:7400", False),
        ("10.0.0.1:7400", False),
        ("scheduler:7400", False),
        (":7400", False),
    ],
)
def test_loopback_is_told_from_the_rest(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_mode_must_be_chosen() -> None:
    with pytest.raises(ValidationError, match="auth_mode"):
        AccessSettings()


@pytest.mark.parametrize("port", ["scheduler_public_address", "scheduler_internal_address"])
def test_development_mode_stays_on_this_machine(port: str) -> None:
    assert AccessSettings(auth_mode="development").reflects
    with pytest.raises(ValidationError, match="loopback"):
        AccessSettings(auth_mode="development", **{port: "0.0.0.0:1"})


def test_production_needs_certificates_or_a_word_that_it_does_not(tmp_path) -> None:
    with pytest.raises(ValidationError, match="PUNCTUAL_ALLOW_PLAINTEXT=true"):
        AccessSettings(auth_mode="production")
    assert not AccessSettings(auth_mode="production", allow_plaintext=True).reflects
    authority = Authority()
    files = authority.issue("scheduler").write(tmp_path / "tls", authority.certificate)
    public = {"public_tls_certificate": files.certificate, "public_tls_key": files.key}
    internal = {
        "internal_tls_certificate": files.certificate,
        "internal_tls_key": files.key,
        "internal_tls_ca": files.authority,
    }
    with pytest.raises(ValidationError, match="INTERNAL_TLS"):
        AccessSettings(auth_mode="production", **public)
    settings = AccessSettings(auth_mode="production", **public, **internal)
    assert settings.internal_tls == files


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_issuer": "i"},
        {"jwt_issuer": "i", "jwt_audience": "a"},
        {"jwt_hs256_secret": SECRET},
        {"jwt_hs256_secret": SECRET, "jwt_issuer": "i"},
        {"jwt_hs256_secret": "short", "jwt_issuer": "i", "jwt_audience": "a"},
        {"jwt_hs256_secret": SECRET, "jwt_jwks_file": "f", "jwt_issuer": "i", "jwt_audience": "a"},
        {"jwt_jwks_url": "http://issuer.test/jwks", "jwt_issuer": "i", "jwt_audience": "a"},
        {"jwt_jwks_url": "http://127.0.0.1.evil.test/jwks", "jwt_issuer": "i", "jwt_audience": "a"},
        {"jwt_leeway_seconds": 61},
        {"api_key_cache_seconds": 61},
        {"public_tls_certificate": "/none"},
        {"public_tls_certificate": "/none", "public_tls_key": "/none"},
        {"internal_tls_certificate": "/none", "internal_tls_key": "/none"},
    ],
)
def test_half_or_weak_setting_is_refused(changes) -> None:
    with pytest.raises(ValidationError):
        AccessSettings(auth_mode="production", allow_plaintext=True, **changes)


@pytest.mark.parametrize(
    "source",
    [
        {"jwt_hs256_secret": SECRET},
        {"jwt_jwks_file": "jwks.json"},
        {"jwt_jwks_url": "https://issuer.test/jwks"},
        {"jwt_jwks_url": "http://127.0.0.1:8080/jwks"},
    ],
)
def test_each_source_of_keys_alone_is_enough(source) -> None:
    AccessSettings(auth_mode="production", allow_plaintext=True, jwt_issuer="i", jwt_audience="a", **source)


def test_names_are_lists_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCTUAL_INTERNAL_EXECUTOR_NAMES", "executor.punctual.svc, spiffe://prod/executor")
    settings = AccessSettings(auth_mode="development")
    assert settings.internal_executor_names == ("executor.punctual.svc", "spiffe://prod/executor")
