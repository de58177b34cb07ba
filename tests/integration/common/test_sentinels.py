"""Finding Redis by its sentinels while one of them hangs, as when its machine lost power or is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from punctual.internal.v1.stream_entry_pb2 import StreamEntry

from libs.common.errors import UnavailableError
from libs.common.streams.connection import open_redis
from libs.common.streams.due_stream import DueStream
from services.executor.adapters.redis_gates.gates import RedisGates
from services.executor.domain.gate_values import GateRules
from tools.devstack.valkey_sentinel import ValkeySentinelSet


async def test_a_sentinel_that_hangs_does_not_keep_from_redis(server_folder: Path) -> None:
    async with ValkeySentinelSet(server_folder) as valkeys:
        valkeys.sentinels[0].process.suspend()
        stream = DueStream(open_redis(valkeys.url))
        gates = RedisGates(open_redis(valkeys.url), key_prefix="p", rules=GateRules(), call_seconds=0.5)
        try:
            await stream.ensure_group()
            await stream.add([(0, StreamEntry(execution_id="e1"))])
            assert [item.entry.execution_id for item in await stream.read(0, "c", 10, 0)] == ["e1"]
            assert await gates.sign_of_life("x1", 1) == (1, False)
        finally:
            valkeys.sentinels[0].process.resume()
            await stream.close()
            await gates.close()


async def test_sentinels_that_know_no_primary_count_as_redis_away(server_folder: Path) -> None:
    async with ValkeySentinelSet(server_folder) as valkeys:
        stream = DueStream(open_redis(valkeys.url.replace("/punctual", "/other")))
        with pytest.raises(UnavailableError, match="no sentinel knows a primary"):
            await stream.backlog(0)
        await stream.close()
