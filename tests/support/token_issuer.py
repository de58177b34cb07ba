"""An issuer of tokens for tests: makes keys, publishes their public halves, and signs what a test asks for."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.test"
AUDIENCE = "punctual"
_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
"""One for all tests: the others are made in no time."""


class TokenIssuer:
    """Signs with one key per algorithm; `rotate` replaces them all but RSA's, under new key ids."""

    def __init__(self) -> None:
        self._generation = 0
        self.keys: dict[str, Any] = {}
        self.rotate()

    def rotate(self) -> None:
        """Make new keys."""
        self._generation += 1
        self.keys = {
            "RS256": _RSA_KEY,
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def key_id(self, algorithm: str) -> str:
        return f"{algorithm}-{self._generation}"

    def jwks(self) -> bytes:
        """Return the public keys as a JSON Web Key Set."""
        encoders: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        keys = [
            {**encoders[algorithm].to_jwk(key.public_key(), as_dict=True), "kid": self.key_id(algorithm), "use": "sig"}
            for algorithm, key in self.keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def sign(self, algorithm: str = "ES256", *, kid: str | None = None, key: Any = None, **claims: Any) -> str:
        """Return a good token, but for the claims that are given; one that is None is left out."""
        return jwt.encode(
            good_claims(**claims),
            key if key is not None else self.keys[algorithm],
            algorithm=algorithm,
            headers={"kid": kid if kid is not None else self.key_id(algorithm)},
        )


def good_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 600,
        "sub": "ana",
        "org": "acme",
        "scope": "jobs.read openid",
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}
