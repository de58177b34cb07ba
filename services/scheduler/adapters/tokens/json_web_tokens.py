"""Knows a caller by a JSON Web Token.

The algorithm is the key's, never the token's: a token that names another one is refused, `none` among them, and a
public key can never serve as an HMAC secret. Claims: `iss`, `aud`, `exp` and `sub` as registered, `nbf` if present;
`org` (required), `projects` (list of project ids; absent: all), and the scopes in `scopes` (list) or `scope` (text).
Scopes that we do not know are another system's and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from libs.common.errors import UnauthenticatedError
from services.scheduler.adapters.tokens.key_set import VerificationKey
from services.scheduler.usecases.caller import ORG_ID, Caller, OrgScope, Permission

MAX_SUBJECT = 256
_REQUIRED = ["iss", "aud", "exp", "sub", "org"]
_KNOWN_SCOPES = frozenset(str(permission) for permission in Permission)


class KeyFinder(Protocol):
    """Finds what to verify a token with."""

    async def find(self, key_id: str) -> VerificationKey | None:
        """Return the key for the `kid` of a token (empty: it names none), or None."""
        ...


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A secret that the issuer and we hold: verifies HS256 tokens, and nothing else."""

    secret: str

    async def find(self, key_id: str) -> VerificationKey | None:  # noqa: ARG002 - there is one, whatever it is called
        """Return the secret."""
        return VerificationKey(self.secret, "HS256")


@dataclass(frozen=True, slots=True)
class VerifyJsonWebToken:
    """Checks tokens of one issuer for one audience."""

    keys: KeyFinder
    issuer: str
    audience: str
    leeway_seconds: float

    async def verify(self, token: str) -> Caller:
        """Return who the token speaks for.

        Raises:
            UnauthenticatedError: it does not hold.
            UnavailableError: the issuer's keys cannot be read.
        """
        try:
            key = await self.keys.find(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                raise UnauthenticatedError("INVALID_TOKEN", "the token is signed with an unknown key")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.leeway_seconds,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("TOKEN_EXPIRED", "the token has expired") from error
        except jwt.PyJWTError as error:
            raise UnauthenticatedError("INVALID_TOKEN", f"the token does not hold: {_why(error)}") from error
        return _to_caller(claims)


def _why(error: jwt.PyJWTError) -> str:
    """Return the kind of refusal in words; the library's own text could repeat parts of the token."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


def _to_caller(claims: Mapping[str, Any]) -> Caller:
    subject, org_id = claims["sub"], claims["org"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise _bad_claim("sub")
    if not isinstance(org_id, str) or not ORG_ID.fullmatch(org_id):
        raise _bad_claim("org")
    projects = claims.get("projects")
    if projects is not None and not _is_text_list(projects):
        raise _bad_claim("projects")
    scopes = claims.get("scopes", claims.get("scope", ""))
    if isinstance(scopes, str):
        scopes = scopes.split()
    if not _is_text_list(scopes):
        raise _bad_claim("scopes")
    return Caller(
        subject,
        OrgScope(org_id, None if projects is None else frozenset(projects)),
        _KNOWN_SCOPES.intersection(scopes),
    )


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _bad_claim(name: str) -> UnauthenticatedError:
    return UnauthenticatedError(
        "INVALID_TOKEN_CLAIM", f"the token's claim {name!r} is not as documented", metadata={"claim": name}
    )
