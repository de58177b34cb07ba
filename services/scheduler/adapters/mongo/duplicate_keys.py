"""Tells whether a bulk write failed for nothing but records that exist already."""

from __future__ import annotations

from pymongo.errors import BulkWriteError

_DUPLICATE_KEY = 11000


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether all that failed of a bulk write is that something exists already; all else is durable then."""
    # An unconfirmed majority is reported beside the duplicates, and means that nothing may be built upon it.
    failures = error.details["writeErrors"]
    return not error.details.get("writeConcernErrors") and all(f["code"] == _DUPLICATE_KEY for f in failures)
