"""The safeguards' settings: what does not start, what a ring may look like, and which limits hold."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.scheduler.safeguard_settings import SafeguardSettings

RING = f"k1:{base64.b64encode(b'1' * 32).decode()}"


def settings(**changes: object) -> SafeguardSettings:
    return SafeguardSettings(**{"auth_mode": "production", "allow_plaintext": True, "key_ring": RING, **changes})


def test_production_without_a_ring_does_not_start():
    with pytest.raises(ValidationError, match="needs PUNCTUAL_KEY_RING or PUNCTUAL_KEY_RING_FILE"):
        settings(key_ring=None)


def test_development_without_a_ring_has_one_that_everybody_knows():
    development = settings(auth_mode="development", key_ring=None)
    assert not development.has_key_ring
    assert development.load_key_ring().current_id == "insecure-development"


def test_a_ring_may_come_as_a_file(tmp_path: Path):
    file = tmp_path / "ring"
    file.write_text(RING)
    assert settings(key_ring=None, key_ring_file=file).load_key_ring().current_id == "k1"


def test_a_ring_and_a_file_are_one_too_many(tmp_path: Path):
    with pytest.raises(ValidationError, match="one of them"):
        settings(key_ring_file=tmp_path / "ring")


def test_a_bad_ring_is_refused_without_showing_it():
    with pytest.raises(ValidationError) as refused:
        settings(key_ring="k1:c2hvcnQ=")
    (error,) = refused.value.errors(include_input=False, include_context=False, include_url=False)
    assert "'k1' has 5 bytes, not 32" in error["msg"]
    assert "c2hvcnQ" not in str(error)


@pytest.mark.parametrize(
    ("mode", "given", "holds"),
    [
        ("production", None, 10),
        ("production", 5, 5),
        ("production", 0, None),
        ("development", None, None),
        ("development", 5, 5),
    ],
)
def test_limits_hold_in_production_and_where_they_are_set(mode: str, given: int | None, holds: int | None):
    chosen = settings(auth_mode=mode, creates_per_minute=given)
    assert chosen.limit(chosen.creates_per_minute, 10) == holds
