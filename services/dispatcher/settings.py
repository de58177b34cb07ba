"""The dispatcher's settings; environment variables are the fields' names in upper case after PUNCTUAL_."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from libs.common.rpc.tls import InternalTlsSettings
from libs.common.settings import Address, PeerAddress
from libs.common.streams.urls import parse_redis_url


class DispatcherSettings(InternalTlsSettings):
    """What the dispatcher can be told."""

    scheduler_internal_address: PeerAddress = Field(
        default="127.0.0.1:7401", description="The scheduler's internal port, host:port. Default 127.0.0.1:7401."
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Where Redis is: redis, rediss, redis+sentinel or redis+cluster. Default redis://127.0.0.1:6379/0.",
    )
    redis_key_prefix: str = Field(
        default="punctual", min_length=1, max_length=64, description="The beginning of every key. Default punctual."
    )
    stream_shards: int = Field(
        default=1, ge=1, le=256, description="Shards of the due stream, the same in every service, 1-256. Default 1."
    )
    dispatcher_health_address: Address = Field(
        default="127.0.0.1:7402", description="Where health is served, host:port. Default 127.0.0.1:7402."
    )
    horizon_seconds: float = Field(
        default=2.0, gt=0, le=5, description="How far ahead executions are acquired, seconds, up to 5. Default 2."
    )
    lead_seconds: float = Field(
        default=0.5,
        ge=0,
        le=4,
        description="How long before it is due an entry is delivered, 0-4 s; a millisecond more for each entry held, up"
        " to 1.5 s in all. Default 0.5.",
    )
    grace_seconds: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="How long overdue an undeliverable entry is left to the poll path, 0-60 s. Default 2.",
    )
    poll_wait_seconds: float = Field(
        default=2.0,
        gt=0,
        le=5,
        description="How long an acquire call stays at a scheduler that finds nothing due, up to 5 s; no longer than"
        " until the next renewal of the partition lease. Default 2.",
    )
    acquire_batch: int = Field(
        default=500, ge=1, le=10_000, description="The most executions of one acquire call, 1-10,000. Default 500."
    )
    max_held: int = Field(
        default=10_000, ge=1, le=1_000_000, description="The most entries held before delivery. Default 10,000."
    )
    max_stream_backlog: int = Field(
        default=1_500, ge=1, le=1_000_000, description="The most undelivered entries on the stream. Default 1,500."
    )
    partition_lease_seconds: float = Field(
        default=5.0,
        ge=1,
        le=60,
        description="How soon a dead one's partitions are taken over, 1-60 s. Default 5.",
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_understood(cls, url: SecretStr) -> SecretStr:
        parse_redis_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _horizon_is_beyond_lead(self) -> Self:
        if self.horizon_seconds <= self.lead_seconds:
            raise ValueError("PUNCTUAL_HORIZON_SECONDS must be more than PUNCTUAL_LEAD_SECONDS")
        return self
