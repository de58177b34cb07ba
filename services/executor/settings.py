"""What an executor can be told by its environment; every variable is `PUNCTUAL_` and the field's name in upper case."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from libs.common.rpc.tls import InternalTlsSettings
from libs.common.settings import Address, PeerAddress
from libs.common.streams.urls import parse_redis_url
from services.executor.domain.address_guard import AllowedTarget
from services.executor.domain.gate_values import SECOND, CircuitRules, GateRules


class ExecutorSettings(InternalTlsSettings):
    """The executor's settings."""

    scheduler_internal_address: PeerAddress = Field(
        default="127.0.0.1:7401", description="The scheduler's internal port, host:port. Default 127.0.0.1:7401."
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis or Valkey: redis://, rediss://, redis+sentinel:// or redis+cluster://. Default "
        "redis://127.0.0.1:6379/0.",
    )
    redis_key_prefix: str = Field(
        default="punctual",
        min_length=1,
        max_length=64,
        description="Begins every key in Redis; the same in all services. Default punctual.",
    )
    stream_shards: int = Field(
        default=1, ge=1, le=256, description="Shards of the stream; the same in all services. 1-256, default 1."
    )
    executor_health_address: Address = Field(
        default="127.0.0.1:7403", description="Where grpc.health.v1 is served, host:port. Default 127.0.0.1:7403."
    )
    executor_concurrency: int = Field(
        default=200, ge=1, le=10_000, description="Requests under way at a time, 1-10,000. Default 200."
    )
    executor_org_share: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="The part of the requests under way that one org may have, above 0, up to 1; 1 where there is only"
        " one. Default 0.8.",
    )
    executor_prefetch: int = Field(
        default=1_000,
        ge=0,
        le=10_000,
        description="Attempts held beyond those under way: waiting for their instant or slot, or for their report to be"
        " taken. 0-10,000, default 1,000.",
    )
    begin_window_seconds: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="How long early entries may wait for company before they are begun, seconds, 0-1. Default 0.1.",
    )
    report_window_seconds: float = Field(
        default=0.2, ge=0, le=1, description="Between two batches of reports at least, seconds, 0-1. Default 0.2."
    )
    report_batch: int = Field(
        default=400, ge=1, le=1000, description="Reports in one call at most, 1-1,000. Default 400."
    )
    poll_interval_seconds: float = Field(
        default=2.0, gt=0, le=60, description="Between polls for overdue work while Redis is well, up to 60. Default 2."
    )
    reap_interval_seconds: float = Field(
        default=10.0, gt=0, le=600, description="Between passes over dead consumers' entries, up to 600. Default 10."
    )
    reap_idle_seconds: float = Field(
        default=120.0,
        ge=30,
        le=86_400,
        description="How long an entry may be unacknowledged before it counts as left behind, 30-86,400. Default 120.",
    )
    upload_patience_seconds: float = Field(
        default=60.0, ge=0, le=600, description="How long a large answer's upload is tried, seconds, 0-600. Default 60."
    )
    ready_within_seconds: float = Field(
        default=10.0, gt=0, le=600, description="A fetch this recent makes the executor ready, up to 600. Default 10."
    )
    max_connections_per_host: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Connections to one target at a time, 1-10,000; 0: as many as requests under way. What finds none"
        " waits as long as connecting may take, behind other orgs' requests, and has timed out then. Default 0.",
    )
    keepalive_seconds: float = Field(
        default=15.0, ge=0, le=300, description="How long an idle connection is kept, seconds, 0-300. Default 15."
    )
    dns_cache_seconds: int = Field(
        default=10, ge=1, le=300, description="How long a name's addresses are remembered, seconds, 1-300. Default 10."
    )
    rate_window_seconds: float = Field(
        default=60.0,
        ge=1,
        le=60,
        description="What counts as the minute of a limit of requests a minute, seconds, 1-60; the same on all"
        " executors, shorter for tests only. Default 60.",
    )
    limits_call_seconds: float = Field(
        default=0.5,
        gt=0,
        le=5,
        description="How long Redis may take to answer for limits; then each executor keeps its share alone, up to 5."
        " Default 0.5.",
    )
    assumed_executors: int = Field(
        default=4,
        ge=1,
        le=10_000,
        description="By how many executors limits are shared for as long as Redis has not told how many there are,"
        " 1-10,000. Default 4.",
    )
    circuit_min_calls: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Fewer calls of a host in a minute never open its circuit, 1-100,000. Default 20.",
    )
    circuit_failure_percent: int = Field(
        default=50, ge=1, le=100, description="The part of failed calls that opens a circuit, percent. Default 50."
    )
    circuit_open_seconds: float = Field(
        default=15.0,
        ge=0.1,
        le=300,
        description="How long a circuit stays open at first, seconds, 0.1-300; doubles up to 300 s. Default 15.",
    )
    allowed_targets: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Inside addresses that may be dialled all the same: networks and host names, each with or without a"
        " port, separated by commas, such as 10.1.0.0/16,llm.internal:8443. Default none.",
    )

    @property
    def gate_rules(self) -> GateRules:
        """Return the rules of all gates."""
        circuit = CircuitRules(
            self.circuit_min_calls, self.circuit_failure_percent, round(self.circuit_open_seconds * SECOND)
        )
        return GateRules(round(self.rate_window_seconds * SECOND), circuit)

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_understood(cls, url: SecretStr) -> SecretStr:
        parse_redis_url(url.get_secret_value())
        return url

    @field_validator("allowed_targets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value

    @field_validator("allowed_targets")
    @classmethod
    def _well_formed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            AllowedTarget.parse(item)
        return value
