"""Where a JSON Web Key Set comes from: a file or a URL, read whole, within bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

MAX_BYTES = 512 * 1024
FETCH_SECONDS = 5.0


class KeyFile:
    """A file, such as a mounted config map."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> bytes:
        """Return what the file holds.

        Raises:
            OSError: it cannot be read.
            ValueError: it is too large.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))


class KeyUrl:
    """An issuer's `jwks_uri`. Redirects are not followed: the issuer that we were told is the one that we trust."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self) -> bytes:
        """Return what the issuer answers.

        Raises:
            OSError: it cannot be reached in time.
            ValueError: it answers something else.
        """
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self._url, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise ValueError(f"the key set's URL answered {answer.status}")
                # `read(n)` of a stream may return less than there is; the loop ends at the bound or at the end.
                body = b""
                while len(body) <= MAX_BYTES and (chunk := await answer.content.read(MAX_BYTES + 1 - len(body))):
                    body += chunk
                return _bounded(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(f"the key set's URL cannot be read: {type(error).__name__}") from error


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BYTES:
        raise ValueError(f"the key set exceeds {MAX_BYTES} bytes")
    return body
