"""Calls take turns among all addresses of a name, which is what the headless service of the manifests relies on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc import aio

from libs.common.rpc.client import open_channel
from tools.devstack.ports import free_ports
from tools.devstack.waiting import wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
METHOD = "/test.Replica/WhoAreYou"


@asynccontextmanager
async def replica(address: str) -> AsyncIterator[None]:
    """A server that answers with its own address."""

    async def who_are_you(_request: bytes, _context: aio.ServicerContext) -> bytes:
        return address.encode()

    server = aio.server()
    handler = grpc.unary_unary_rpc_method_handler(who_are_you)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Replica", {"WhoAreYou": handler})])
    server.add_insecure_port(address)
    await server.start()
    yield
    await server.stop(0)


async def callers_choice(channel: aio.Channel, calls: int) -> Counter[bytes]:
    ask = channel.unary_unary(METHOD)
    return Counter([await ask(b"", wait_for_ready=True) for _ in range(calls)])


async def test_calls_take_turns_among_replicas_and_leave_out_one_that_is_gone() -> None:
    (port,) = free_ports(1)
    addresses = [f"{host}:{port}" for host in HOSTS]
    async with AsyncExitStack() as stack:
        for address in addresses[:2]:
            await stack.enter_async_context(replica(address))
        async with open_channel(f"ipv4:{','.join(addresses)}") as channel:
            async with replica(addresses[2]):

                async def all_connected() -> bool:
                    return len(await callers_choice(channel, 3)) == 3

                await wait_until(all_connected, seconds=10, what="connections to all replicas")
                spread = await callers_choice(channel, 30)
                # A connection that comes or goes deals anew, so turns may be off by one.
                assert all(9 <= calls <= 11 for calls in spread.values())

            async def two_left() -> bool:
                try:
                    return len(await callers_choice(channel, 3)) == 2
                except Exception:  # noqa: BLE001 - one call may meet the replica that has just gone
                    return False

            await wait_until(two_left, seconds=10, what="only the replicas that are left")
            spread = await callers_choice(channel, 30)
            assert set(spread) == {address.encode() for address in addresses[:2]}
            assert all(14 <= calls <= 16 for calls in spread.values())


@pytest.mark.parametrize(
    ("address", "target"),
    [("scheduler:7401", "dns:///scheduler:7401"), ("ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1")],
)
async def test_a_name_is_resolved_to_all_its_addresses(
    address: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[str] = []
    monkeypatch.setattr(aio, "insecure_channel", lambda target, **_: dialled.append(target))
    open_channel(address)
    assert dialled == [target]
