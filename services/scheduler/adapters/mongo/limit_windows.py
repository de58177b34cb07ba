"""Windows of request limits in MongoDB, shared by all replicas: a storage for the `limits` library.

The library's own MongoDB storage for asyncio needs Motor, which is at its end and wants a client of its own; this one
works on the client that the scheduler has. Each window is one document, moved by one atomic update with the server's
clock, so replicas agree on when it ends; what is taken out of it at the same time shares the update. A window that is
lost with a step-down costs a caller nothing: it counts from zero, so the weakest write concern is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from pymongo import ReturnDocument, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from services.scheduler.adapters.mongo.shared_round_trips import SharedRoundTrips

_MILLIS = 1000


class SharedWindows:
    """Implements `Windows` with the library's fixed windows."""

    def __init__(self, collection: AsyncCollection[dict[str, Any]]) -> None:
        self._windows = MongoWindows(collection)
        self._limiter = FixedWindowRateLimiter(self._windows)
        self._ones = SharedRoundTrips(self._take_ones)

    async def take(self, key: str, limit: int, cost: int) -> bool:
        """Take a cost out of the key's window; False when it exceeds the limit."""
        if cost == 1:
            return await self._ones.ask((key, limit), None)
        item = RateLimitItemPerMinute(limit)
        # A hit counts even when it is refused, which is nothing for a cost of one; a refused batch would eat up what
        # is left for smaller ones.
        return await self._limiter.test(item, key, cost=cost) and await self._limiter.hit(item, key, cost=cost)

    async def _take_ones(self, window: tuple[str, int], askers: Sequence[None]) -> Sequence[bool]:
        """Take one for each asker by one update; as many of them get theirs as would have gotten it one by one."""
        key, limit = window
        item = RateLimitItemPerMinute(limit)
        count = await self._windows.incr(item.key_for(key), item.get_expiry(), amount=len(askers))
        granted = limit - (count - len(askers))
        return [number < granted for number in range(len(askers))]

    async def end_time(self, key: str, limit: int) -> datetime:
        """Return when the key's window ends."""
        stats = await self._limiter.get_window_stats(RateLimitItemPerMinute(limit), key)
        return datetime.fromtimestamp(stats.reset_time, UTC)


class MongoWindows(Storage):
    """Counts in fixed windows; what `FixedWindowRateLimiter` asks for."""

    # Not made by the library from an address, but by us from a collection.
    STORAGE_SCHEME = None

    def __init__(self, collection: AsyncCollection[dict[str, Any]]) -> None:
        super().__init__()
        self._windows = collection.with_options(write_concern=WriteConcern(w=1))

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the database raises."""
        return PyMongoError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to the window of a key, or to a new one of `expiry` seconds when it ended; returns its count."""
        running = {"$gt": ["$expire_time", "$$NOW"]}
        window: dict[str, Any] = await self._windows.find_one_and_update(  # type: ignore[assignment] # an upsert finds one
            {"_id": key},
            [
                {
                    "$set": {
                        "count": {"$cond": [running, {"$add": ["$count", amount]}, amount]},
                        "expire_time": {
                            "$cond": [running, "$expire_time", {"$add": ["$$NOW", expiry * _MILLIS]}],
                        },
                    }
                }
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return int(window["count"])

    async def get(self, key: str) -> int:
        """Return the count of the window of a key."""
        window = await self._windows.find_one({"_id": key, "$expr": {"$gt": ["$expire_time", "$$NOW"]}})
        return int(window["count"]) if window else 0

    async def get_expiry(self, key: str) -> float:
        """Return when the window of a key ends, in seconds since 1970; 0 when there is none."""
        window = await self._windows.find_one({"_id": key})
        return float(window["expire_time"].timestamp()) if window else 0.0

    async def check(self) -> bool:
        """Return whether the windows can be read."""
        await self._windows.find_one({})
        return True

    async def reset(self) -> int:
        """Forget all windows."""
        return (await self._windows.delete_many({})).deleted_count

    async def clear(self, key: str) -> None:
        """Forget the window of a key."""
        await self._windows.delete_one({"_id": key})
