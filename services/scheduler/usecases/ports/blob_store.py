"""Where large answers are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class BlobStore(Protocol):
    """Answers that are too large for their execution's record. A blob is written once, whole or not at all."""

    async def write(self, blob_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes durably under an id that was never used before.

        When this fails or is cancelled, no blob is there to be read; `delete` removes what is left of it.

        Raises:
            UnavailableError: the store does not take it now.
        """
        ...

    def open_stream(self, blob_id: str) -> AsyncIterator[bytes]:
        """Return an answer's stored bytes in parts.

        Raises:
            NotFoundError: no such blob.
            UnavailableError: the store does not answer.
        """
        ...

    async def delete(self, blob_id: str) -> None:
        """Remove a blob, or what an upload that failed has left of it; nothing happens when there is neither.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...
