"""The grammar of target addresses: strict, so that every parser that sees one reads the same host.

Tabs, backslashes, user info and fragments are where URL parsers disagree, and where requests get smuggled; they are
refused. Which addresses a host may resolve to is decided at the moment of dialling, by the executor's guard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from libs.common.errors import InvalidArgumentError

MAX_URL_LENGTH = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 3986's characters; without a scheme that is ours nothing else is looked at.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9]([a-z0-9\-_]{0,62})?(\.[a-z0-9]([a-z0-9\-_]{0,62})?)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """The parts of an address that matter to limits and guards; the host in lower case."""

    scheme: str
    host: str
    port: int

    @property
    def host_port(self) -> str:
        """The host with its port, such as `api.example.com:443`, by which limits and circuits are kept."""
        # "example.com." is the same host, by the same addresses.
        host = f"[{self.host}]" if ":" in self.host else self.host.rstrip(".")
        return f"{host}:{self.port}"


@lru_cache(maxsize=4096)
def split_target_url(url: str, field: str = "url") -> TargetUrl:
    """Return the parts of an address.

    Raises:
        InvalidArgumentError: INVALID_URL on the field.
    """

    def refuse(why: str) -> InvalidArgumentError:
        return InvalidArgumentError.of(field, "INVALID_URL", why)

    if not url:
        raise refuse("is required")
    if len(url) > MAX_URL_LENGTH:
        raise refuse(f"is longer than {MAX_URL_LENGTH} characters")
    if not _URL.fullmatch(url):
        raise refuse("must be http:// or https:// followed by URL characters only")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refuse("has an invalid host or port") from error
    if "@" in parts.netloc:
        raise refuse("must not carry user info")
    if "#" in url:
        raise refuse("must not carry a fragment")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or port == 0:
        raise refuse("has an invalid host or port")
    return TargetUrl(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])
