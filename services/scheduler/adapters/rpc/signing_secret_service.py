"""SigningSecretService: the public API of signing secrets. A value leaves once, in the answer that creates it."""

from __future__ import annotations

from punctual.v1 import signing_secret_pb2, signing_secret_service_pb2_grpc
from punctual.v1 import signing_secret_service_pb2 as pb

from libs.common.errors import InvalidArgumentError
from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.times import to_optional_timestamp, to_span
from services.scheduler.domain.signing_secret import DEFAULT_OVERLAP, SigningSecret
from services.scheduler.usecases.signing_secrets import ManageSigningSecrets


class SigningSecretService(signing_secret_service_pb2_grpc.SigningSecretServiceServicer):
    """Maps messages to the use case."""

    def __init__(self, manage: ManageSigningSecrets, authenticator: Authenticator) -> None:
        self._manage = manage
        self._authenticator = authenticator

    async def RotateSigningSecret(
        self, request: pb.RotateSigningSecretRequest, context: Context
    ) -> pb.RotateSigningSecretResponse:
        """Create the current secret."""
        caller = await self._authenticator.authenticate(context)
        overlap = to_span(request.overlap, "overlap") if request.HasField("overlap") else DEFAULT_OVERLAP
        created = await self._manage.rotate(caller, overlap)
        return pb.RotateSigningSecretResponse(signing_secret=_from_secret(created), secret=created.value)

    async def ListSigningSecrets(
        self, request: pb.ListSigningSecretsRequest, context: Context
    ) -> pb.ListSigningSecretsResponse:
        """Return the live secrets."""
        caller = await self._authenticator.authenticate(context)
        live = await self._manage.list(caller)
        return pb.ListSigningSecretsResponse(signing_secrets=[_from_secret(secret) for secret in live])

    async def RevokeSigningSecret(
        self, request: pb.RevokeSigningSecretRequest, context: Context
    ) -> signing_secret_pb2.SigningSecret:
        """End a secret."""
        caller = await self._authenticator.authenticate(context)
        if not request.secret_id:
            raise InvalidArgumentError.of("secret_id", "REQUIRED", "is required")
        return _from_secret(await self._manage.revoke(caller, request.secret_id))


def _from_secret(secret: SigningSecret) -> signing_secret_pb2.SigningSecret:
    return signing_secret_pb2.SigningSecret(
        secret_id=secret.secret_id,
        create_time=to_timestamp(secret.create_time),
        expire_time=to_optional_timestamp(secret.expire_time),
        hint=secret.hint,
    )
