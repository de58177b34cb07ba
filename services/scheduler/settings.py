"""What the scheduler can be told by its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from libs.common.settings import ServiceSettings
from services.scheduler.adapters.blobs.object_blobs import open_object_store
from services.scheduler.safeguard_settings import SafeguardSettings


class DatabaseSettings(ServiceSettings):
    """Where the database is; all that the scheduler's commands need to know."""

    mongodb_uri: SecretStr = Field(description="The MongoDB connection string, a replica set's. Required.")
    mongodb_database: str = Field(default="punctual", description="The database's name. Default punctual.")

    @field_validator("mongodb_uri")
    @classmethod
    def _mongodb_uri_is_understood(cls, uri: SecretStr) -> SecretStr:
        text = uri.get_secret_value()
        # The other scheme's servers stand in the DNS, which the start does not wait for.
        if not text.startswith("mongodb+srv://"):
            try:
                parse_uri(text)
            except (PyMongoError, ValueError) as error:
                raise ValueError(
                    "must be a MongoDB connection string, mongodb://... or mongodb+srv://..., with user and password "
                    "percent-encoded"
                ) from error
        return uri


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
    blob_store_url: str = Field(
        default="",
        description="Where answers are kept that are too large for their execution's record: s3://bucket/prefix, "
        "gs://bucket/prefix, az://container/prefix (credentials by each store's own variables) or file:///folder, the "
        "same for all replicas. Default empty: in the database, by GridFS.",
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
    max_catch_up_per_second: float = Field(
        default=100.0,
        gt=0,
        le=100_000,
        description="How many fires that were missed while nobody could run them may run in a second, by each replica, "
        "up to 100000. Default 100.",
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

    @field_validator("blob_store_url")
    @classmethod
    def _blob_store_is_known(cls, url: str) -> str:
        # A folder is made when it is opened, which checking settings must not do.
        if url and not url.startswith("file:///"):
            open_object_store(url)
        return url
