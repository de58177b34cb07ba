"""TargetHostService: the public API of how target hosts are treated."""

from __future__ import annotations

from punctual.v1 import target_host_pb2, target_host_service_pb2_grpc
from punctual.v1 import target_host_service_pb2 as pb

from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, page_size_of
from services.scheduler.adapters.rpc.target_host_mapping import from_target_host
from services.scheduler.domain.target_host import HostLimits
from services.scheduler.usecases.target_hosts import ManageTargetHosts


class TargetHostService(target_host_service_pb2_grpc.TargetHostServiceServicer):
    """Maps messages to the use case."""

    def __init__(self, manage: ManageTargetHosts, authenticator: Authenticator) -> None:
        self._manage = manage
        self._authenticator = authenticator

    async def ListTargetHosts(self, request: pb.ListTargetHostsRequest, context: Context) -> pb.ListTargetHostsResponse:
        """Return a page of hosts."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        after = decode_page_token(request)
        hosts = await self._manage.list(caller, after=str(after[0]) if after else "", limit=size + 1)
        return pb.ListTargetHostsResponse(
            target_hosts=[from_target_host(host) for host in hosts[:size]],
            next_page_token=encode_page_token([hosts[size - 1].host], request) if len(hosts) > size else "",
        )

    async def ResetTargetHost(self, request: pb.ResetTargetHostRequest, context: Context) -> target_host_pb2.TargetHost:
        """Reset a host."""
        caller = await self._authenticator.authenticate(context)
        return from_target_host(await self._manage.reset(caller, request.host))

    async def SetTargetHostLimit(
        self, request: pb.SetTargetHostLimitRequest, context: Context
    ) -> target_host_pb2.TargetHost:
        """Set a host's limits."""
        caller = await self._authenticator.authenticate(context)
        limits = HostLimits(request.max_requests_per_minute, request.max_concurrent_requests)
        return from_target_host(await self._manage.set_limits(caller, request.host, limits))
