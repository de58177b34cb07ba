"""The strict grammar of an address to POST to, checked again at every send and for every redirect.

The scheduler refuses bad addresses when a job is made; this is the second lock, at the place where harm would be
done. What parsers disagree about (user info, backslashes, control characters, whitespace) is refused as text, before
any parser sees it, so that there is no second reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

MAX_URL_CHARS = 8_192
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS_THAT_KEEP_THE_POST = frozenset({307, 308})


class BadUrlError(ValueError):
    """The address is not one that may be POSTed to; the message says why without repeating it."""


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A checked address. Two with the same origin share credentials."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return what a browser would call the origin."""
        return self.scheme, self.host, self.port

    @property
    def host_port(self) -> str:
        """Return the host with its port, such as `api.example.com:443`, by which limits and circuits are kept."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_target_url(text: str) -> TargetUrl:
    """Return the checked address.

    Raises:
        BadUrlError: it breaks the grammar.
    """
    if len(text) > MAX_URL_CHARS:
        raise BadUrlError("the address is too long")
    if any(c <= " " or c in {"\x7f", "\\"} for c in text):
        raise BadUrlError("the address holds a space, a control character or a backslash")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadUrlError("the address cannot be read") from error
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise BadUrlError("the address is neither http nor https")
    if "@" in parts.netloc:
        raise BadUrlError("the address holds user info")
    if parts.fragment:
        raise BadUrlError("the address holds a fragment")
    host = (parts.hostname or "").rstrip(".")
    if not host or "%" in host:
        raise BadUrlError("the address names no host, or a zone")
    if port == 0:
        raise BadUrlError("the address names port 0")
    return TargetUrl(text, scheme, host, port or _DEFAULT_PORTS[scheme])


def redirect_target(current: TargetUrl, status_code: int, location: str | None) -> TargetUrl | None:
    """Return where a redirect leads if it is of the kind that keeps the POST and says where to; else None.

    Raises:
        BadUrlError: it leads to an address that breaks the grammar, or would send in clear what was sent encrypted.
    """
    if status_code not in _REDIRECTS_THAT_KEEP_THE_POST or not location:
        return None
    try:
        target = parse_target_url(urljoin(current.text, location.partition("#")[0]))
    except BadUrlError:
        raise
    except ValueError as error:
        raise BadUrlError("the address cannot be read") from error
    if current.scheme == "https" and target.scheme != "https":
        raise BadUrlError("the redirect leads from https to http")
    return target
