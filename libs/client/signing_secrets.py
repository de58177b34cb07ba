"""The calls of SigningSecretService."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from grpc import aio
from punctual.v1 import signing_secret_service_pb2 as pb
from punctual.v1.signing_secret_pb2 import SigningSecret
from punctual.v1.signing_secret_service_pb2_grpc import SigningSecretServiceStub

from libs.client.calls import Calls
from libs.client.timestamps import duration


class SigningSecrets:
    """Manages the secrets that sign the org's requests and callbacks."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = SigningSecretServiceStub(channel)
        self._calls = calls

    async def rotate(self, *, overlap: timedelta | None = None) -> pb.RotateSigningSecretResponse:
        """Create a secret that replaces the current one, which signs too until `overlap` ends. Never retried."""
        request = pb.RotateSigningSecretRequest(overlap=duration(overlap))
        return await self._calls.unary(self._stub.RotateSigningSecret, request)

    async def list(self) -> Sequence[SigningSecret]:
        """Return the live secrets without their values, newest first; at most two."""
        answer = await self._calls.unary(self._stub.ListSigningSecrets, pb.ListSigningSecretsRequest())
        return answer.signing_secrets

    async def revoke(self, secret_id: str) -> SigningSecret:
        """End a secret at once."""
        request = pb.RevokeSigningSecretRequest(secret_id=secret_id)
        return await self._calls.unary(self._stub.RevokeSigningSecret, request)
