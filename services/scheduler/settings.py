"""What the scheduler can be told by its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from libs.common.settings import ServiceSettings
from services.scheduler.safeguard_settings import SafeguardSettings


class DatabaseSettings(ServiceSettings):
    """Where the database is; all that the scheduler's commands need to know."""

    mongodb_uri: SecretStr = Field(description="The MongoDB connection string, a replica set's. Required.")
    mongodb_database: str = Field(default="punctual", description="The database's name. Default punctual.")


class SchedulerSettings(SafeguardSettings, DatabaseSettings):
    """The scheduler's settings; each is the variable PUNCTUAL_ and its name in upper case."""

    lease_seconds: float = Field(
        default=15.0,
        ge=0.5,
        le=300,
        description="How long an executor's lease of an attempt holds without renewal, seconds, 0.5-300. Default 15.",
    )
    retention_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="How long finished executions and deleted jobs are kept, days, up to 3650. Default 30.",
    )
    fingerprint_window_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="How long after its creation a job refuses an equal one without allow_duplicate, seconds, "
        "0-86400; 0: never. Default 300.",
    )
    default_host_requests_per_minute: int = Field(
        default=0,
        ge=0,
        le=600_000,
        description="The most requests a minute of an org to one target host, where the org has set none, 0-600000; 0: "
        "no limit. Default 0.",
    )
    default_host_concurrent_requests: int = Field(
        default=64,
        ge=0,
        le=10_000,
        description="The most requests at the same time of an org to one target host, where the org has set none, "
        "0-10000; 0: no limit. Default 64.",
    )
    max_watches: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="WatchExecutions calls that one replica serves at once; each holds a database connection, 1-1000. "
        "Default 64.",
    )
    sweep_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="How often a replica looks for ends of executions that a dead process left unsettled, seconds, "
        "0.1-3600. Default 5.",
    )
