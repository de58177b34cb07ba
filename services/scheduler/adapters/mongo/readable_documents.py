"""Reads documents for the dispatch path, and passes over those that this version cannot read.

One that a newer version or somebody's hand wrote must not hold up the fires of all others. It stays as it is, and comes
back with a version that can read it. An operator has to look at it: each is logged once by a process, and counted each
time that it is met, so that a rate shows for how long it has been there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pymongo.asynchronous.cursor import AsyncCursor

from libs.common.logs import get_logger
from libs.common.turns import ITEMS_A_TURN, next_turn

DOCUMENTS_TOGETHER = 128
"""In one answer of the database, which the driver decodes in one go; more would hold up the event loop."""
SMALL_DOCUMENTS_TOGETHER = 1_000
"""The same where of each only a few fields are asked for: together they are decoded in two milliseconds."""
MAX_REMEMBERED = 1000
_T = TypeVar("_T")

log = get_logger(__name__)


class ReadableDocuments:
    """Decodes the documents of one collection."""

    def __init__(self, collection: str, passed_over: Callable[[str], None]) -> None:
        """Tell `passed_over` the collection for each document that is passed over."""
        self._collection = collection
        self._passed_over = passed_over
        self._told: set[str] = set()

    async def decode(self, cursor: AsyncCursor[dict[str, Any]], decode: Callable[[Mapping[str, Any]], _T]) -> list[_T]:
        """Return what the cursor finds, as far as it can be read."""
        found: list[_T] = []
        async for document in cursor:
            if len(found) % ITEMS_A_TURN == ITEMS_A_TURN - 1:
                await next_turn()
            try:
                found.append(decode(document))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a document is wrong with it alone
                self._passed_over(self._collection)
                self._tell(str(document["_id"]), error)
        return found

    def _tell(self, document_id: str, error: Exception) -> None:
        if document_id in self._told:
            return
        if len(self._told) >= MAX_REMEMBERED:
            self._told.clear()
        self._told.add(document_id)
        # The error's text may hold what is stored; its kind says enough to find the place.
        log.error(
            "document.unreadable", collection=self._collection, document_id=document_id, error=type(error).__name__
        )
