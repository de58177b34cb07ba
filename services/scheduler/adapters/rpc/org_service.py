"""OrgService: the public API of an org's settings and quotas."""

from __future__ import annotations

from collections.abc import Collection

from punctual.v1 import org_pb2, org_service_pb2_grpc
from punctual.v1 import org_service_pb2 as pb

from libs.common.errors import FieldViolation, InvalidArgumentError
from services.scheduler.adapters.rpc.authentication import Authenticator, Context
from services.scheduler.adapters.rpc.times import to_duration, to_span
from services.scheduler.adapters.rpc.update_mask import MAX_PATHS
from services.scheduler.domain.org import OPERATOR_FIELDS, OrgSettings
from services.scheduler.usecases.org_settings import ManageOrgSettings, OrgUse

_WRITABLE = frozenset({"job_failed_callback_url", *OPERATOR_FIELDS})


class OrgService(org_service_pb2_grpc.OrgServiceServicer):
    """Maps messages to the use case."""

    def __init__(self, manage: ManageOrgSettings, authenticator: Authenticator) -> None:
        self._manage = manage
        self._authenticator = authenticator

    async def GetOrgSettings(self, request: pb.GetOrgSettingsRequest, context: Context) -> org_pb2.OrgSettings:
        """Return the settings of the caller's org."""
        caller = await self._authenticator.authenticate(context)
        return _from_use(await self._manage.get(caller))

    async def UpdateOrgSettings(self, request: pb.UpdateOrgSettingsRequest, context: Context) -> org_pb2.OrgSettings:
        """Change the named settings."""
        caller = await self._authenticator.authenticate(context)
        fields = _fields(request)
        try:
            wanted = _to_settings(caller.scope.org_id, request.org_settings)
            return _from_use(await self._manage.update(caller, wanted, fields))
        except InvalidArgumentError as error:
            raise error.under("org_settings") from error


def _fields(request: pb.UpdateOrgSettingsRequest) -> Collection[str]:
    """Return the fields that the mask names, or that are populated where there is none."""
    if not request.update_mask.paths:
        return _WRITABLE & {field.name for field, _ in request.org_settings.ListFields()}
    paths = set(request.update_mask.paths)
    if paths == {"*"}:
        return _WRITABLE
    if len(paths) > MAX_PATHS:
        raise InvalidArgumentError.of("update_mask", "TOO_MANY_PATHS", f"{len(paths)} paths, at most {MAX_PATHS}")
    unknown = sorted(paths - _WRITABLE)
    if unknown:
        raise InvalidArgumentError(
            [FieldViolation("update_mask", "UNKNOWN_PATH", f"{path[:80]!r} cannot be written") for path in unknown]
        )
    return paths


def _to_settings(org_id: str, message: org_pb2.OrgSettings) -> OrgSettings:
    return OrgSettings(
        org_id=org_id,
        max_jobs=message.max_jobs,
        max_stored_bytes=message.max_stored_bytes,
        max_creates_per_minute=message.max_creates_per_minute,
        min_interval=to_span(message.min_interval, "min_interval"),
        job_failed_callback_url=message.job_failed_callback_url,
    )


def _from_use(use: OrgUse) -> org_pb2.OrgSettings:
    settings = use.settings
    return org_pb2.OrgSettings(
        org_id=settings.org_id,
        job_failed_callback_url=settings.job_failed_callback_url,
        max_jobs=settings.max_jobs,
        min_interval=to_duration(settings.min_interval),
        max_stored_bytes=settings.max_stored_bytes,
        max_creates_per_minute=settings.max_creates_per_minute,
        job_count=use.job_count,
        stored_bytes=use.stored_bytes,
    )
