"""The calls of OrgService."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.field_mask_pb2 import FieldMask
from grpc import aio
from punctual.v1 import org_service_pb2 as pb
from punctual.v1.org_pb2 import OrgSettings
from punctual.v1.org_service_pb2_grpc import OrgServiceStub

from libs.client.calls import Calls


class Org:
    """Shows and changes the org's settings."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = OrgServiceStub(channel)
        self._calls = calls

    async def get(self) -> OrgSettings:
        """Return the org's settings, quotas and use."""
        return await self._calls.unary(self._stub.GetOrgSettings, pb.GetOrgSettingsRequest())

    async def update(self, settings: OrgSettings, *, update_mask: Iterable[str] = ()) -> OrgSettings:
        """Change the settings that the mask names, or the populated ones."""
        paths = tuple(update_mask)
        request = pb.UpdateOrgSettingsRequest(
            org_settings=settings, update_mask=FieldMask(paths=paths) if paths else None
        )
        return await self._calls.unary(self._stub.UpdateOrgSettings, request)
