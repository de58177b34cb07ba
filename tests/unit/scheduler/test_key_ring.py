"""The key ring: what is sealed opens in its place only, and a rotation keeps old values readable."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from services.scheduler.adapters.key_ring import (
    InvalidKeyRingError,
    KeyRing,
    UnreadableSecretError,
    insecure_key_ring,
    key_id_of,
    parse_key_ring,
    read_key_ring,
)

K1, K2 = os.urandom(32), os.urandom(32)
PLACE = ("acme", "job-1", "authorization")


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_what_is_sealed_opens_in_its_place():
    ring = KeyRing({"k1": K1})
    sealed = ring.seal("Bearer ü", *PLACE)
    assert "Bearer" not in sealed
    assert ring.open(sealed, *PLACE) == "Bearer ü"


def test_the_same_text_is_sealed_differently_each_time():
    ring = KeyRing({"k1": K1})
    assert ring.seal("same", *PLACE) != ring.seal("same", *PLACE)


@pytest.mark.parametrize(
    "place",
    [
        ("other", "job-1", "authorization"),
        ("acme", "job-2", "authorization"),
        ("acme", "job-1", "cookie"),
        ("acmejob-1", "", "authorization"),
        ("acme", "job-1"),
    ],
)
def test_a_sealed_value_does_not_open_in_another_place(place: tuple[str, ...]):
    ring = KeyRing({"k1": K1})
    with pytest.raises(UnreadableSecretError):
        ring.open(ring.seal("s3cret", *PLACE), *place)


def test_every_flipped_byte_is_noticed():
    ring = KeyRing({"k1": K1})
    key_id, _, payload = ring.seal("s3cret", *PLACE).partition(".")
    data = base64.b64decode(payload)
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        with pytest.raises(UnreadableSecretError):
            ring.open(f"{key_id}.{base64.b64encode(changed).decode()}", *PLACE)


@pytest.mark.parametrize("sealed", ["", "k1", "k1.", "k1.!!", "k1.AAAA", "k9.AAAA"])
def test_what_was_never_sealed_does_not_open(sealed: str):
    with pytest.raises(UnreadableSecretError):
        KeyRing({"k1": K1}).open(sealed, *PLACE)


def test_after_a_rotation_old_values_open_and_new_ones_are_under_the_new_key():
    old = KeyRing({"k1": K1}).seal("s3cret", *PLACE)
    ring = KeyRing({"k2": K2, "k1": K1})
    assert ring.open(old, *PLACE) == "s3cret"
    assert key_id_of(ring.seal("s3cret", *PLACE)) == "k2"
    with pytest.raises(UnreadableSecretError, match="k1"):
        KeyRing({"k2": K2}).open(old, *PLACE)


def test_a_ring_is_read_from_text_and_file(tmp_path: Path):
    sealed = KeyRing({"k1": K1}).seal("s3cret", *PLACE)
    assert parse_key_ring(f"k2:{text_of(K2)}, k1:{text_of(K1)}").open(sealed, *PLACE) == "s3cret"
    file = tmp_path / "ring"
    file.write_text(f"k2:{text_of(K2)}\nk1:{text_of(K1)}\n")
    ring = read_key_ring(file)
    assert ring.current_id == "k2"
    assert ring.key_ids == {"k1", "k2"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no key"),
        ("k1", "entry 1"),
        (f"k 1:{text_of(K1)}", "entry 1"),
        (f"k1:{text_of(K1)},k1:{text_of(K2)}", "twice"),
        ("k1:***", "not base64"),
        (f"k1:{text_of(K1[:16])}", "16 bytes"),
    ],
    ids=["nothing", "no colon", "a space", "one id twice", "no base64", "too short"],
)
def test_a_bad_ring_is_refused_with_a_sentence_that_holds_no_key(text: str, why: str):
    with pytest.raises(InvalidKeyRingError, match=why) as refused:
        parse_key_ring(text)
    assert text_of(K1) not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InvalidKeyRingError, match="cannot be read"):
        read_key_ring(tmp_path / "none")


def test_the_development_key_is_the_same_in_every_process():
    assert insecure_key_ring().open(insecure_key_ring().seal("x", *PLACE), *PLACE) == "x"
