"""The call of AuditService."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from grpc import aio
from punctual.v1 import audit_service_pb2 as pb
from punctual.v1.audit_pb2 import AuditEvent
from punctual.v1.audit_service_pb2_grpc import AuditServiceStub

from libs.client.calls import Calls
from libs.client.paging import Paged
from libs.client.timestamps import timestamp

AuditPages: TypeAlias = Paged[pb.ListAuditEventsRequest, pb.ListAuditEventsResponse, AuditEvent]


class Audit:
    """Lists who changed what."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._stub = AuditServiceStub(channel)
        self._calls = calls

    def list(
        self,
        *,
        object_type: str = "",
        object_id: str = "",
        actor: str = "",
        method: str = "",
        event_after: datetime | None = None,
        event_before: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> AuditPages:
        """List audit events, newest first."""
        request = pb.ListAuditEventsRequest(
            object_type=object_type,
            object_id=object_id,
            actor=actor,
            method=method,
            event_after=timestamp(event_after),
            event_before=timestamp(event_before),
            page_size=page_size,
            page_token=page_token,
        )
        return Paged(self._calls, self._stub.ListAuditEvents, request, lambda page: page.events)
