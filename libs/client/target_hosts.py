"""The calls of TargetHostService."""

from __future__ import annotations

from typing import TypeAlias

from grpc import aio
from punctual.v1 import target_host_service_pb2 as pb
from punctual.v1.target_host_pb2 import TargetHost
from punctual.v1.target_host_service_pb2_grpc import TargetHostServiceStub

from libs.client.calls import Calls
from libs.client.paging import Paged

TargetHostPages: TypeAlias = Paged[pb.ListTargetHostsRequest, pb.ListTargetHostsResponse, TargetHost]


class TargetHosts:
    """Shows and steers how the org's target hosts are treated."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = TargetHostServiceStub(channel)
        self._calls = calls

    def list(self, *, page_size: int = 0, page_token: str = "") -> TargetHostPages:
        """List the hosts that the org's jobs called lately or that have a limit of their own."""
        request = pb.ListTargetHostsRequest(page_size=page_size, page_token=page_token)
        return Paged(self._calls, self._stub.ListTargetHosts, request, lambda page: page.target_hosts)

    async def reset(self, host: str) -> TargetHost:
        """Close a host's circuit, forget its rate limit, and wake what waits for it."""
        return await self._calls.unary(self._stub.ResetTargetHost, pb.ResetTargetHostRequest(host=host))

    async def set_limit(
        self, host: str, *, max_requests_per_minute: int = 0, max_concurrent_requests: int = 0
    ) -> TargetHost:
        """Set a host's limits; 0 returns to the installation's default."""
        request = pb.SetTargetHostLimitRequest(
            host=host,
            max_requests_per_minute=max_requests_per_minute,
            max_concurrent_requests=max_concurrent_requests,
        )
        return await self._calls.unary(self._stub.SetTargetHostLimit, request)
