"""AuditService: the public API of the audit."""

from __future__ import annotations

from punctual.v1 import audit_pb2, audit_service_pb2_grpc
from punctual.v1 import audit_service_pb2 as pb

from libs.common.rpc.timestamps import to_timestamp
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.page_tokens import decode_page_token, encode_page_token, fitting, page_size_of
from services.scheduler.adapters.rpc.times import to_instant
from services.scheduler.usecases.audit import AuditEvent, AuditFilter, AuditLog


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """Maps messages to the log."""

    def __init__(self, audit: AuditLog, authenticator: Authenticator) -> None:
        self._audit = audit
        self._authenticator = authenticator

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """Return a page of events."""
        caller = await self._authenticator.authenticate(context)
        size = page_size_of(request)
        after = decode_page_token(request)
        events = await self._audit.find_page(
            caller.scope, _to_filter(request), after=str(after[0]) if after else "", limit=size + 1
        )
        shown = fitting(_from_event(event) for event in events[:size])
        more = len(events) > len(shown)
        return pb.ListAuditEventsResponse(
            events=shown, next_page_token=encode_page_token([shown[-1].event_id], request) if more else ""
        )


def _to_filter(request: pb.ListAuditEventsRequest) -> AuditFilter:
    return AuditFilter(
        object_type=request.object_type,
        object_id=request.object_id,
        actor=request.actor,
        method=request.method,
        event_after=to_instant(request.event_after, "event_after") if request.HasField("event_after") else None,
        event_before=to_instant(request.event_before, "event_before") if request.HasField("event_before") else None,
    )


def _from_event(event: AuditEvent) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(
        event_id=event.event_id,
        event_time=to_timestamp(event.event_time),
        org_id=event.org_id,
        project_id=event.project_id,
        actor=event.actor,
        method=event.method,
        object_type=event.object_type,
        object_id=event.object_id,
        changes=[
            audit_pb2.FieldChange(path=change.path, before=change.before, after=change.after)
            for change in event.changes
        ],
        request_id=event.request_id,
        peer=event.peer,
        result=event.result,
        note=event.note,
    )
