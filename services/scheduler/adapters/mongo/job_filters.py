"""The queries behind ListJobs and the bulk calls: which index serves which filter.

Every list is sorted by id, newest first, and continues after an id. States are always named one by one, so that the
database merges index ranges that are sorted already, and a page costs the same from the first to the last. Only a name
prefix and a fire window range over another key: narrow ones are found by their own index and sorted, wide ones are
walked in the order of the ids, whichever the database finds cheaper.
"""

from __future__ import annotations

import re

from services.scheduler.adapters.mongo.codec import Document
from services.scheduler.domain.job import JobState
from services.scheduler.usecases.caller import OrgScope
from services.scheduler.usecases.ports.job_store import JobFilter

_SHOWN = frozenset(JobState) - {JobState.DELETED}


def within(scope: OrgScope) -> Document:
    """Return the part of a filter that keeps a query inside the caller's scope."""
    if scope.project_ids is None:
        return {"org_id": scope.org_id}
    return {"org_id": scope.org_id, "project_id": {"$in": sorted(scope.project_ids)}}


def label_text(key: str, value: str) -> str:
    """Return a label as it is indexed; keys hold no `=`."""
    return f"{key}={value}"


def list_filter(scope: OrgScope, where: JobFilter, after: str) -> Document:
    """Return the filter of a page that continues after a job id (empty: from the start)."""
    states = where.states or _SHOWN
    clauses: list[Document] = [within(scope)]
    if where.project_id:
        clauses.append({"project_id": where.project_id})
    clauses.extend({"labels": label_text(key, value)} for key, value in (where.labels or {}).items())
    if where.name_prefix:
        clauses.append({"name": {"$regex": f"^{re.escape(where.name_prefix)}"}})
    if where.target_host:
        clauses.append({"target_host": where.target_host})
    window = {"$gte": where.next_fire_after, "$lt": where.next_fire_before}
    if any(window.values()):
        # The cursor of a job that is not ACTIVE is where it stopped, and no next fire.
        states &= {JobState.ACTIVE}
        clauses.append({"next_fire_time": {bound: instant for bound, instant in window.items() if instant}})
    clauses.append({"state": {"$in": sorted(states)}})
    if after:
        clauses.append({"_id": {"$lt": after}})
    return {"$and": clauses}
