"""Decides which dispatcher looks after which partition.

A partition moves only when its holder gives it up by renewing (and so learns it), or when its lease runs out: two live
dispatchers never hold one, as long as both keep to their leases. The balance is even within one partition, and comes
about over a few renewals: those with more than their share give the surplus back, those with less take what is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from services.scheduler.domain.job import PARTITION_COUNT


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """Who holds what: the lease end of each live dispatcher, and the holder of each held partition."""

    leases: Mapping[str, datetime]
    holders: Mapping[int, str]
    version: int = 0

    def held_by(self, dispatcher_id: str) -> tuple[int, ...]:
        """Return the partitions of a dispatcher, in order."""
        return tuple(sorted(p for p, holder in self.holders.items() if holder == dispatcher_id))


def renew(table: PartitionTable, dispatcher_id: str, expire_time: datetime, now: datetime) -> PartitionTable:
    """Return the table after a dispatcher's renewal: the dead dropped, the surplus given back, the free taken."""
    leases = {who: end for who, end in table.leases.items() if end > now}
    leases[dispatcher_id] = expire_time
    holders = {partition: who for partition, who in table.holders.items() if who in leases}
    share = _share(dispatcher_id, sorted(leases))
    mine = [p for p in range(PARTITION_COUNT) if holders.get(p) == dispatcher_id]
    for partition in mine[share:]:
        del holders[partition]
    free = [p for p in range(PARTITION_COUNT) if p not in holders]
    for partition in free[: max(share - len(mine), 0)]:
        holders[partition] = dispatcher_id
    return replace(table, leases=leases, holders=holders, version=table.version + 1)


def release(table: PartitionTable, dispatcher_id: str) -> PartitionTable:
    """Return the table without a dispatcher that drains."""
    leases = {who: end for who, end in table.leases.items() if who != dispatcher_id}
    holders = {partition: who for partition, who in table.holders.items() if who != dispatcher_id}
    return replace(table, leases=leases, holders=holders, version=table.version + 1)


def _share(dispatcher_id: str, live: list[str]) -> int:
    """Return how many partitions a dispatcher should hold; the first ones by name hold one more when it is uneven."""
    even, rest = divmod(PARTITION_COUNT, len(live))
    return even + (1 if live.index(dispatcher_id) < rest else 0)
