"""The calls of ApiKeyService."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias

from grpc import aio
from punctual.v1 import api_key_service_pb2 as pb
from punctual.v1.api_key_pb2 import ApiKey
from punctual.v1.api_key_service_pb2_grpc import ApiKeyServiceStub

from libs.client.calls import Calls
from libs.client.paging import Paged
from libs.client.timestamps import timestamp

ApiKeyPages: TypeAlias = Paged[pb.ListApiKeysRequest, pb.ListApiKeysResponse, ApiKey]


class ApiKeys:
    """Manages the org's API keys."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = ApiKeyServiceStub(channel)
        self._calls = calls

    async def create(
        self,
        name: str,
        *,
        scopes: Iterable[str],
        project_ids: Iterable[str] = (),
        expire_time: datetime | None = None,
    ) -> pb.CreateApiKeyResponse:
        """Create a key; its secret is in this answer and nowhere else. Never retried."""
        key = ApiKey(name=name, scopes=scopes, project_ids=project_ids, expire_time=timestamp(expire_time))
        return await self._calls.unary(self._stub.CreateApiKey, pb.CreateApiKeyRequest(api_key=key))

    def list(self, *, show_revoked: bool = False, page_size: int = 0, page_token: str = "") -> ApiKeyPages:
        """List the keys, newest first, without their secrets."""
        request = pb.ListApiKeysRequest(show_revoked=show_revoked, page_size=page_size, page_token=page_token)
        return Paged(self._calls, self._stub.ListApiKeys, request, lambda page: page.api_keys)

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key; it stops to work within seconds."""
        return await self._calls.unary(self._stub.RevokeApiKey, pb.RevokeApiKeyRequest(key_id=key_id))
