"""ApiKeyService: the public API of API keys."""

from __future__ import annotations

from punctual.v1 import api_key_pb2, api_key_service_pb2_grpc
from punctual.v1 import api_key_service_pb2 as pb

from libs.common.clock import Clock
from libs.common.errors import InvalidArgumentError
from libs.common.instants import truncate_to_millis
from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, page_size_of
from services.scheduler.adapters.rpc.times import to_instant, to_optional_timestamp
from services.scheduler.domain.api_key import ApiKey
from services.scheduler.usecases.api_keys import CreateApiKey, NewApiKey
from services.scheduler.usecases.audit import call_event
from services.scheduler.usecases.ports.api_key_store import ApiKeyStore


class ApiKeyService(api_key_service_pb2_grpc.ApiKeyServiceServicer):
    """Maps messages to the store and the one use case that has rules."""

    def __init__(self, keys: ApiKeyStore, create: CreateApiKey, clock: Clock, authenticator: Authenticator) -> None:
        self._keys = keys
        self._create = create
        self._clock = clock
        self._authenticator = authenticator

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """Create a key."""
        caller = await self._authenticator.authenticate(context)
        try:
            created = await self._create(caller, _to_new_key(request.api_key))
        except InvalidArgumentError as error:
            raise error.under("api_key") from error
        return pb.CreateApiKeyResponse(api_key=_from_key(created.key), secret=created.token)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """Return a page of keys."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        after = decode_page_token(request)
        keys = await self._keys.find_page(
            caller.scope, show_revoked=request.show_revoked, after=str(after[0]) if after else "", limit=size + 1
        )
        return pb.ListApiKeysResponse(
            api_keys=[_from_key(key) for key in keys[:size]],
            next_page_token=encode_page_token([keys[size - 1].key_id], request) if len(keys) > size else "",
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> api_key_pb2.ApiKey:
        """Revoke a key."""
        caller = await self._authenticator.authenticate(context)
        if not request.key_id:
            raise InvalidArgumentError.of("key_id", "REQUIRED", "is required")
        now = truncate_to_millis(self._clock.now())
        event = call_event(caller, now, "api_key", request.key_id)
        return _from_key(await self._keys.revoke(caller.scope, request.key_id, now, audit=event))


def _to_new_key(message: api_key_pb2.ApiKey) -> NewApiKey:
    return NewApiKey(
        name=message.name,
        scopes=frozenset(message.scopes),
        project_ids=frozenset(message.project_ids) or None,
        expire_time=to_instant(message.expire_time, "expire_time") if message.HasField("expire_time") else None,
    )


def _from_key(key: ApiKey) -> api_key_pb2.ApiKey:
    return api_key_pb2.ApiKey(
        key_id=key.key_id,
        org_id=key.org_id,
        name=key.name,
        project_ids=sorted(key.project_ids or ()),
        scopes=sorted(key.scopes),
        create_time=to_timestamp(key.create_time),
        expire_time=to_optional_timestamp(key.expire_time),
        revoke_time=to_optional_timestamp(key.revoke_time),
        creator=key.creator,
    )
