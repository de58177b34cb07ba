"""The vectors of semantics.md B3, and what must break a signature."""

from __future__ import annotations

import base64
import hashlib

import pytest

from services.executor.domain.signature import sign, signature_headers

SECRET = base64.b64decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
OLD_SECRET = base64.b64decode("Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=")
ID, TIME = "msg_01J9ZK3M5T7W9Y2B4D6F8H0J1K", 1767225600
BODY = (
    '{"job_id":"65f0c0ffee","run_id":"01J9ZK3M5T","attempt":1,"scheduled_at":"2026-01-01T00:00:00Z",'
    '"data":{"text":"Grüße ☕"}}'
).encode()


def test_the_body_of_the_vector_is_the_published_one() -> None:
    assert len(BODY) == 125
    assert hashlib.sha256(BODY).hexdigest() == "42e63e35e441d1979f95e7aecce8418b08fefd046cc2723cc37fd3d6503c0ac8"


@pytest.mark.parametrize(
    ("message_id", "timestamp", "body", "secret", "expected"),
    [
        (ID, TIME, BODY, SECRET, "v1,5Qgfy1R45+TdkWFIcBMlGX51bN1jWQL8YOPuTwgoIw0="),
        (ID, TIME, b"", SECRET, "v1,fEqlZCcj86STEw0C1ilnjNPWQ+2THfdKzOE+1mfr8XU="),
        (ID, TIME, BODY, OLD_SECRET, "v1,ufzo0qNwyPOmnU+OrNiHAogMCtQWc2omtx5++nmj+Ss="),
        (
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ],
)
def test_the_published_vectors(message_id: str, timestamp: int, body: bytes, secret: bytes, expected: str) -> None:
    assert sign(message_id, timestamp, body, secret) == expected


def test_a_rotation_signs_with_each_live_secret() -> None:
    headers = signature_headers(ID, TIME, BODY, [SECRET, OLD_SECRET])
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": "1767225600",
        "webhook-signature": "v1,5Qgfy1R45+TdkWFIcBMlGX51bN1jWQL8YOPuTwgoIw0= "
        "v1,ufzo0qNwyPOmnU+OrNiHAogMCtQWc2omtx5++nmj+Ss=",
    }


def test_without_secrets_there_is_no_signature() -> None:
    assert signature_headers(ID, TIME, BODY, []) == {}


def test_an_id_with_a_dot_is_refused() -> None:
    with pytest.raises(ValueError, match="dot"):
        signature_headers("a.b", TIME, BODY, [SECRET])


def test_every_changed_byte_changes_the_signature() -> None:
    original = sign(ID, TIME, BODY, SECRET)
    for position in range(len(BODY)):
        changed = bytearray(BODY)
        changed[position] ^= 1
        assert sign(ID, TIME, bytes(changed), SECRET) != original
    assert sign(ID, TIME + 1, BODY, SECRET) != original
    assert sign(ID + "x", TIME, BODY, SECRET) != original
