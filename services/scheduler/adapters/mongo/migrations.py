"""Brings the database to the shape that this version needs: explicit, idempotent, safe while other replicas run.

Indexes are created by name; creating one that exists is nothing, and two replicas doing so at once meet inside the
server. A changed index gets a new name, and the old one goes into RETIRED_INDEXES once no running version needs it.
"""

from __future__ import annotations

from typing import Any

from beanie import init_beanie
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from services.scheduler.adapters.blobs.gridfs_blobs import PARTS, PARTS_INDEX
from services.scheduler.adapters.mongo.documents import DOCUMENTS

RETIRED_INDEXES: dict[str, tuple[str, ...]] = {}
"""Index names by collection that this version drops."""

_INDEX_NOT_FOUND = 27


async def migrate(database: AsyncDatabase[dict[str, Any]]) -> None:
    """Create all collections and indexes, and drop the retired ones."""
    for document in DOCUMENTS:
        settings = document.Settings
        collection = database[settings.name]
        indexes = getattr(settings, "indexes", [])
        if indexes:
            await collection.create_indexes(indexes)
    # Also where answers are kept elsewhere: so a change of that finds it.
    await database[PARTS].create_indexes([PARTS_INDEX])
    for name, retired in RETIRED_INDEXES.items():
        for index in retired:
            try:
                await database[name].drop_index(index)
            except OperationFailure as error:
                if error.code != _INDEX_NOT_FOUND:
                    raise


async def bind_documents(database: AsyncDatabase[dict[str, Any]]) -> None:
    """Bind the Beanie documents to the database without touching its indexes."""
    await init_beanie(database=database, document_models=list(DOCUMENTS), skip_indexes=True)
