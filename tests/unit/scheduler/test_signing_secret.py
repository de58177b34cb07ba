"""Signing secrets: at most two live, without a gap between them, and nothing left of an ended one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from services.scheduler.domain.signing_secret import (
    KEPT_ENDED,
    SigningSecrets,
    decode_secret,
    new_secret,
    revoke,
    rotate,
)

NOW = datetime(2026, 5, 4, tzinfo=UTC)
DAY = timedelta(days=1)


def rotated(present: SigningSecrets, number: int, overlap: timedelta, now: datetime) -> SigningSecrets:
    return rotate(present, new_secret(f"s{number}", bytes([number]) * 32, now), overlap, now)


def live(secrets: SigningSecrets, now: datetime) -> list[str]:
    return [secret.secret_id for secret in secrets.live(now)]


def test_a_secret_has_the_form_of_standard_webhooks():
    secret = new_secret("s1", bytes(range(32)), NOW)
    assert secret.value == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert decode_secret(secret.value) == bytes(range(32))
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret.value)
    assert secret.hint == secret.value[-4:]


def test_the_first_rotation_creates_the_only_secret():
    secrets = rotated(SigningSecrets("acme"), 1, DAY, NOW)
    assert live(secrets, NOW + 365 * DAY) == ["s1"]


def test_the_old_secret_signs_until_the_overlap_ends():
    secrets = rotated(rotated(SigningSecrets("acme"), 1, DAY, NOW), 2, DAY, NOW + DAY)
    assert live(secrets, NOW + 2 * DAY - timedelta(milliseconds=1)) == ["s2", "s1"]
    assert live(secrets, NOW + 2 * DAY) == ["s2"]


def test_without_overlap_the_old_secret_ends_at_once():
    secrets = rotated(rotated(SigningSecrets("acme"), 1, DAY, NOW), 2, timedelta(0), NOW)
    assert live(secrets, NOW) == ["s2"]


def test_a_third_live_secret_is_refused_until_one_has_ended():
    two = rotated(rotated(SigningSecrets("acme"), 1, DAY, NOW), 2, DAY, NOW)
    with pytest.raises(FailedPreconditionError) as refused:
        rotated(two, 3, DAY, NOW)
    assert refused.value.reason == "ROTATION_IN_PROGRESS"
    assert live(rotated(two, 3, DAY, NOW + DAY), NOW + DAY) == ["s3", "s2"]
    assert live(rotated(revoke(two, "s1", NOW), 3, DAY, NOW), NOW) == ["s3", "s2"]


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_an_overlap_out_of_range_is_refused(overlap: timedelta):
    with pytest.raises(InvalidArgumentError):
        rotated(SigningSecrets("acme"), 1, overlap, NOW)


def test_a_revoked_secret_ends_at_once_and_keeps_no_value():
    secrets = revoke(rotated(SigningSecrets("acme"), 1, DAY, NOW), "s1", NOW + DAY)
    assert live(secrets, NOW + DAY) == []
    (ended,) = secrets.secrets
    assert (ended.value, ended.sealed, ended.expire_time) == ("", "", NOW + DAY)
    assert revoke(secrets, "s1", NOW + 2 * DAY).secrets == secrets.secrets


def test_a_secret_that_never_was_is_not_found():
    with pytest.raises(NotFoundError):
        revoke(SigningSecrets("acme"), "s1", NOW)


def test_an_org_remembers_a_bounded_number_of_ended_secrets():
    secrets = SigningSecrets("acme")
    for number in range(KEPT_ENDED + 5):
        secrets = rotated(secrets, number, timedelta(0), NOW + number * DAY)
    assert len(secrets.secrets) == KEPT_ENDED + 1
