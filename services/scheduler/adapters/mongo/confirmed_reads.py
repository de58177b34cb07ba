"""Waits until what was read cannot be lost any more: a primary shows writes that a majority does not have yet."""

from __future__ import annotations

from typing import Any

from pymongo.asynchronous.collection import AsyncCollection


async def confirm_reads(collection: AsyncCollection[dict[str, Any]]) -> None:
    """Return when all that was read of a collection before is durable."""
    # It matches nothing, and is acknowledged when a majority has all that came before it.
    await collection.update_one({"_id": ""}, {"$unset": {"state": ""}})
