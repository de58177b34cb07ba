"""Puts together what protects orgs: secrets sealed at rest, the audit, request limits and quotas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from grpc.aio import ServerInterceptor
from punctual.v1 import audit_service_pb2_grpc, org_service_pb2_grpc, signing_secret_service_pb2_grpc

from libs.common.clock import Clock
from libs.common.logs import get_logger
from libs.common.rpc.server import RpcServer
from services.scheduler.adapters.mongo.audit_log import MongoAuditLog
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox, AuditRelay
from services.scheduler.adapters.mongo.connection import translate_error
from services.scheduler.adapters.mongo.documents import WITH_OUTBOX, AuditEventDocument, RequestLimitDocument
from services.scheduler.adapters.mongo.header_secrets import HeaderSecrets
from services.scheduler.adapters.mongo.key_rotation import KeyRotation, require_keys
from services.scheduler.adapters.mongo.limit_windows import SharedWindows
from services.scheduler.adapters.mongo.org_store import MongoOrgStore
from services.scheduler.adapters.mongo.org_usage import MongoOrgUsage
from services.scheduler.adapters.mongo.signing_secret_store import MongoSigningSecretStore
from services.scheduler.adapters.rpc.audit_fields import ProtoJobFields
from services.scheduler.adapters.rpc.audit_layer import AuditInterceptor
from services.scheduler.adapters.rpc.audit_service import AuditService
from services.scheduler.adapters.rpc.authentication import Authenticator
from services.scheduler.adapters.rpc.limit_layer import RequestLimitInterceptor
from services.scheduler.adapters.rpc.org_service import OrgService
from services.scheduler.adapters.rpc.signing_secret_service import SigningSecretService
from services.scheduler.domain.org import OrgSettings
from services.scheduler.safeguard_settings import SafeguardSettings
from services.scheduler.usecases.audit import JobAudit
from services.scheduler.usecases.org_settings import ManageOrgSettings, OrgQuotas
from services.scheduler.usecases.request_limits import Limits, RequestLimits
from services.scheduler.usecases.signing_secrets import ManageSigningSecrets

SAFEGUARD_SERVICES = ("punctual.v1.AuditService", "punctual.v1.SigningSecretService", "punctual.v1.OrgService")
CALLS_PER_MINUTE = 600
CREATES_PER_MINUTE = 10
BATCH_CREATES_PER_MINUTE = 10_000

RELAY_SECONDS = 1.0
"""How often a replica looks whether it has written something for the audit; the events of that time go together.

Nobody sees the wait: whoever lists events has them copied first."""

USAGE_SECONDS = 1.0
ROTATION_SECONDS = 1.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """A background duty: what it runs, and how many seconds apart."""

    run_once: Callable[[], Awaitable[object]]
    interval: float


class Safeguards:
    """Made before the stores, which write sealed and with their audit events."""

    def __init__(self, settings: SafeguardSettings, clock: Clock, retention: timedelta) -> None:
        """Take how long executions are kept, beside the settings."""
        self._settings = settings
        self._clock = clock
        self._key_ring = settings.load_key_ring()
        self.outbox = AuditOutbox()
        self.headers = HeaderSecrets(self._key_ring)
        self.signing_secrets = MongoSigningSecretStore(self._key_ring, self.outbox, clock)
        self.orgs = MongoOrgStore(_org_defaults(settings), self.outbox, clock)
        self.usage = MongoOrgUsage(self.orgs, clock, retention)
        self.quotas = OrgQuotas(self.orgs, self.usage)
        self.job_audit = JobAudit(ProtoJobFields())

    def announce(self) -> None:
        """Say at the start what an operator should not have to find out."""
        if not self._settings.has_key_ring:
            log.warning("key_ring.insecure", warning="secrets are encrypted under a key that everybody knows")

    async def check(self) -> None:
        """Refuse to serve when stored secrets need a key that is not there; once the documents are bound."""
        await require_keys(self._key_ring)

    def connect(self) -> ConnectedSafeguards:
        """Return the parts that hold on to collections; once the documents are bound."""
        retention = timedelta(days=self._settings.audit_retention_days)
        relay = AuditRelay(
            self.outbox,
            [document.get_pymongo_collection() for document in WITH_OUTBOX],
            AuditEventDocument.get_pymongo_collection(),
            self._clock,
            retention,
        )
        settings = self._settings
        limits = Limits(
            calls=settings.limit(settings.calls_per_minute, CALLS_PER_MINUTE),
            creates=settings.limit(settings.creates_per_minute, CREATES_PER_MINUTE),
            batch_creates=settings.limit(settings.batch_creates_per_minute, BATCH_CREATES_PER_MINUTE),
        )
        windows = SharedWindows(RequestLimitDocument.get_pymongo_collection())
        return ConnectedSafeguards(
            audit=MongoAuditLog(relay, retention),
            limits=RequestLimits(windows, self.orgs, self._clock, limits),
            signing_secrets=ManageSigningSecrets(self.signing_secrets, self._clock),
            org_settings=ManageOrgSettings(self.orgs, self.usage, self._clock),
            clock=self._clock,
            duties={
                "audit_relay": Duty(relay.run_once, RELAY_SECONDS),
                "org_usage": Duty(self.usage.flush, USAGE_SECONDS),
                "key_rotation": Duty(
                    KeyRotation(self._key_ring, self.headers, self.signing_secrets).run_once, ROTATION_SECONDS
                ),
            },
        )


@dataclass(frozen=True, slots=True)
class ConnectedSafeguards:
    """The services, layers and duties."""

    audit: MongoAuditLog
    limits: RequestLimits
    signing_secrets: ManageSigningSecrets
    org_settings: ManageOrgSettings
    clock: Clock
    duties: Mapping[str, Duty]

    def layers(self, gate: Sequence[ServerInterceptor], authenticator: Authenticator) -> Sequence[ServerInterceptor]:
        """Return the layers of the public port around and inside its gate, outermost first."""
        return [
            AuditInterceptor(self.audit, self.clock, translate_error),
            *gate,
            RequestLimitInterceptor(self.limits, authenticator),
        ]

    def add_to(self, public: RpcServer, authenticator: Authenticator) -> None:
        """Serve the APIs of the safeguards."""
        public.add(audit_service_pb2_grpc.add_AuditServiceServicer_to_server, AuditService(self.audit, authenticator))
        public.add(
            signing_secret_service_pb2_grpc.add_SigningSecretServiceServicer_to_server,
            SigningSecretService(self.signing_secrets, authenticator),
        )
        public.add(org_service_pb2_grpc.add_OrgServiceServicer_to_server, OrgService(self.org_settings, authenticator))


def _org_defaults(settings: SafeguardSettings) -> OrgSettings:
    return OrgSettings(
        org_id="",
        max_jobs=settings.org_max_jobs,
        max_stored_bytes=settings.org_max_stored_bytes,
        max_creates_per_minute=settings.creates_per_minute or CREATES_PER_MINUTE,
        min_interval=timedelta(seconds=settings.org_min_interval_seconds),
    )
