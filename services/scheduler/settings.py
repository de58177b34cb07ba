"""What the scheduler can be told by its environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from libs.common.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """The scheduler's settings; each is the variable PUNCTUAL_ and its name in upper case."""

    mongodb_uri: SecretStr = Field(description="The MongoDB connection string, a replica set's. Required.")
    mongodb_database: str = Field(default="punctual", description="The database's name. Default punctual.")
    scheduler_public_address: str = Field(
        default="127.0.0.1:7400", description="Where the public API listens, host:port. Default 127.0.0.1:7400."
    )
    scheduler_internal_address: str = Field(
        default="127.0.0.1:7401",
        description="Where dispatchers and executors reach the internal API, host:port. Default 127.0.0.1:7401.",
    )
    auth_mode: Literal["development"] = Field(
        description="How callers are known. `development` believes the metadata x-punctual-org and is refused on an "
        "address that is not loopback. Required: there is no safe default."
    )
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
    sweep_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="How often a replica looks for ends of executions that a dead process left unsettled, seconds, "
        "0.1-3600. Default 5.",
    )
