"""Runs the Node client's tests against the whole system; `make test-node`. Not collected by `make test`."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from pathlib import Path

import pytest

from tests.support.cluster import Cluster

HERE = Path(__file__).parent
PROTOS = HERE.parents[1] / "protos"
GOOGLE_PROTOS = sysconfig.get_path("purelib")
SECONDS = 60


async def test_node_client(mongo_uri: str, mongo_database: str, redis_database: str, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, mongo_uri, mongo_database, redis_database)
    try:
        await cluster.start()
        node = await asyncio.create_subprocess_exec(
            "node",
            "--test",
            str(HERE / "client.test.mjs"),
            env={
                "PATH": os.environ["PATH"],
                "PUNCTUAL_ADDRESS": cluster.public_addresses[0],
                "TARGET_URL": cluster.target(),
                "PROTO_ROOTS": f"{PROTOS}:{GOOGLE_PROTOS}",
            },
        )
        try:
            code = await asyncio.wait_for(node.wait(), SECONDS)
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
    finally:
        await cluster.stop()
    assert code == 0, "see node's own report above"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s"]))
