"""Watches the dispatch path from outside it: what is overdue, where, for how long, and whose it should have been.

The dispatch path is a chain of services, and a chain that stands still counts nothing. So every replica looks at the
records now and then and says what it finds: jobs whose fire no dispatcher asked for, executions that their phase's
actor left lying, partitions that nobody holds. What it finds is the same on every replica.

One thing it mends: fires that nobody materializes, because no live dispatcher holds their partition. The tick is safe
from anywhere (insert once, advance by compare-and-set), and the executors' poll path delivers what it makes. Where a
partition has its dispatcher, that one may wait on purpose, for the stream is full; if it hangs, its liveness ends it,
and the partition is free. The rest has a mender already, the poll path or the sweep; if that does not come, no write
of ours would help, so it is told and not touched.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from libs.common.clock import Clock
from libs.common.logs import get_logger
from services.scheduler.domain.job import PARTITION_COUNT
from services.scheduler.usecases.acquire_due import AcquireDue
from services.scheduler.usecases.ports.partition_store import PartitionStore

MAX_COUNTED = 10_000
"""Records of one kind that are counted; more show as this many."""
PATIENCE = timedelta(seconds=10)
"""How long a fire may lie before the watchdog sees to it: twice the lease of a partition."""
REPAIR_BATCH = 500
"""Jobs whose fires one pass mends."""
_ALL = range(PARTITION_COUNT)

log = get_logger(__name__)


class Place(enum.StrEnum):
    """Where overdue work lies, and so who should have acted."""

    JOB = "JOB"
    """A job whose fire no tick has taken: the dispatcher of its partition."""
    WAITING = "WAITING"
    """The wait of an execution is over: the same dispatcher, then the poll path."""
    DISPATCHED = "DISPATCHED"
    """Delivered and not begun within the grace: the executors."""
    LEASED = "LEASED"
    """Its lease ran out: the poll path of the other executors."""
    SETTLING = "SETTLING"
    """Ended, and its job not told: the sweep."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """What lies at a place beyond its time."""

    count: int = 0
    """At most MAX_COUNTED."""
    oldest: datetime | None = None
    """When it should have been acted on."""

    def age_seconds(self, now: datetime) -> float:
        """Return for how long the oldest has lain; 0 when nothing does."""
        return 0.0 if self.oldest is None else max((now - self.oldest).total_seconds(), 0.0)


class Records(Protocol):
    """The stored records as the watchdog looks at them; every question is bounded and served by an index."""

    async def overdue(self, now: datetime, most: int) -> Mapping[Place, Overdue]:
        """Return what is overdue at each place, counted up to a bound."""
        ...

    async def partitions_of_overdue_jobs(self, among: Collection[int], before: datetime, most: int) -> frozenset[int]:
        """Return those of the partitions that have jobs whose fires have lain since before an instant.

        Judged by the oldest such jobs, at most so many.
        """
        ...


class WatchdogObserver(Protocol):
    """Hears what a pass found."""

    def found(self, overdue: Mapping[Place, Overdue], now: datetime) -> None:
        """Hear what is overdue."""
        ...

    def partitions(self, unowned: int) -> None:
        """Hear how many partitions no live dispatcher holds."""
        ...

    def repaired(self, fires: int) -> None:
        """Hear of fires that the watchdog materialized."""
        ...


@dataclass(slots=True)
class Watchdog:
    """Looks once in a while, on every replica; what it does twice changes nothing."""

    records: Records
    partitions: PartitionStore
    acquire: AcquireDue
    observer: WatchdogObserver
    clock: Clock
    _told: frozenset[str] = field(default=frozenset(), init=False)

    async def run_once(self) -> int:
        """Look at everything once, and return how many fires were mended."""
        now = self.clock.now()
        overdue = await self.records.overdue(now, MAX_COUNTED)
        unowned = await self._unowned(now)
        self.observer.found(overdue, now)
        self.observer.partitions(len(unowned))
        self._tell(overdue, unowned, now)
        if not unowned or overdue.get(Place.JOB, Overdue()).age_seconds(now) <= PATIENCE.total_seconds():
            return 0
        return await self._materialize(unowned, now)

    async def _unowned(self, now: datetime) -> list[int]:
        table = await self.partitions.read()
        live = {who for who, end in table.leases.items() if end > now}
        return [partition for partition in _ALL if table.holders.get(partition) not in live]

    async def _materialize(self, unowned: Collection[int], now: datetime) -> int:
        """Do the tick's work for partitions without a dispatcher; the poll path delivers."""
        partitions = await self.records.partitions_of_overdue_jobs(unowned, now - PATIENCE, REPAIR_BATCH)
        if not partitions:
            return 0
        batch = await self.acquire.run_once(sorted(partitions), timedelta(0), REPAIR_BATCH)
        if batch.executions:
            log.warning("watchdog.repaired", executions=len(batch.executions), partitions=len(partitions))
            self.observer.repaired(len(batch.executions))
        return len(batch.executions)

    def _tell(self, overdue: Mapping[Place, Overdue], unowned: Collection[int], now: datetime) -> None:
        """Log what lies too long, once for each time that it begins or ends."""
        lying = {place.value for place, found in overdue.items() if found.age_seconds(now) > PATIENCE.total_seconds()}
        if unowned:
            lying.add("PARTITIONS")
        for place in sorted(lying - self._told):
            if place == "PARTITIONS":
                log.warning("watchdog.partitions_unowned", count=len(unowned))
                continue
            found = overdue[Place(place)]
            log.warning("watchdog.overdue", place=place, count=found.count, oldest_seconds=found.age_seconds(now))
        for place in sorted(self._told - lying):
            log.info("watchdog.over", place=place)
        self._told = frozenset(lying)
