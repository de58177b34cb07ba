"""How a client says who it is: a bearer token, which may be a JWT or an API key, given or kept in a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from libs.common.errors import UnauthenticatedError


class Credentials(Protocol):
    """Where the token comes from."""

    def token(self) -> str:
        """Return the token to send with the next call.

        Raises:
            UnauthenticatedError: there is none now.
        """
        ...


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that stays the same."""

    value: str = field(repr=False)

    def token(self) -> str:
        """Return the token."""
        return _checked(self.value, "the token")


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that holds a token and nothing else, read anew at each call: whoever renews the token just writes it."""

    path: Path

    def token(self) -> str:
        """Return what the file holds now."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UnauthenticatedError("TOKEN_UNREADABLE", f"cannot read the token file {self.path}: {why}") from error
        return _checked(text, f"the token in {self.path}")


def _checked(text: str, name: str) -> str:
    """Return the token without the line end that files have; what HTTP/2 metadata cannot carry is refused by name."""
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UnauthenticatedError("TOKEN_MALFORMED", f"{name} is empty or has characters that no token has")
    return token
