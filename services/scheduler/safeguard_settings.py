"""The settings that protect orgs from leaks and from each other: encryption at rest, the audit, limits and quotas."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from services.scheduler.access_settings import AccessSettings
from services.scheduler.adapters.key_ring import (
    InvalidKeyRingError,
    KeyRing,
    insecure_key_ring,
    parse_key_ring,
    read_key_ring,
)


class SafeguardSettings(AccessSettings):
    """Keys, retention of the audit, request limits, and the quotas of an org that was granted no others."""

    key_ring: SecretStr | None = Field(
        default=None,
        description="The keys that encrypt secrets at rest: `<id>:<base64 of 32 bytes>`, several separated by commas; "
        "the first encrypts, all decrypt. Required in production, here or as a file.",
    )
    key_ring_file: Path | None = Field(default=None, description="A file that holds the same, one key a line.")
    audit_retention_days: float = Field(
        default=365.0, gt=0, le=3650, description="How long audit events are kept, days, up to 3,650. Default 365."
    )
    calls_per_minute: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="Calls a minute of one caller, over all replicas; 0: no limit. Default 600, in development none.",
    )
    creates_per_minute: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="CreateJob calls a minute of an org that was granted no other number; 0: no limit for any org. "
        "Default 10, in development none.",
    )
    batch_creates_per_minute: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="Jobs that an org may create by BatchCreateJobs in a minute, a budget of its own; 0: no limit. "
        "Default 10,000, in development none.",
    )
    org_max_jobs: int = Field(
        default=1_000_000,
        ge=1,
        le=10_000_000,
        description="Jobs of an org that are not deleted, 1-10,000,000. Default 1,000,000.",
    )
    org_max_stored_bytes: int = Field(
        default=100_000_000_000,
        ge=1,
        description="Bytes of an org's stored answers; above it only their heads are kept. Default 100,000,000,000.",
    )
    org_min_interval_seconds: float = Field(
        default=0.0, ge=0, le=86_400, description="The shortest time between two fires of a job, seconds. Default 0."
    )

    @property
    def has_key_ring(self) -> bool:
        """Whether secrets are encrypted under a key of the installation's own."""
        return self.key_ring is not None or self.key_ring_file is not None

    def load_key_ring(self) -> KeyRing:
        """Return the installation's key ring; in development, without one, the one that everybody knows.

        Raises:
            InvalidKeyRingError: with the sentence to show the operator.
        """
        if self.key_ring is not None:
            return parse_key_ring(self.key_ring.get_secret_value())
        if self.key_ring_file is not None:
            return read_key_ring(self.key_ring_file)
        return insecure_key_ring()

    def limit(self, given: int | None, default: int) -> int | None:
        """Return a request limit, None for none; the demo and the benchmarks of development create thousands."""
        if given is None:
            return None if self.auth_mode == "development" else default
        return given or None

    @model_validator(mode="after")
    def _secrets_can_be_kept(self) -> Self:
        if self.key_ring is not None and self.key_ring_file is not None:
            raise ValueError("PUNCTUAL_KEY_RING and PUNCTUAL_KEY_RING_FILE: one of them, not both")
        if not self.has_key_ring and self.auth_mode != "development":
            raise ValueError(
                "PUNCTUAL_AUTH_MODE=production needs PUNCTUAL_KEY_RING or PUNCTUAL_KEY_RING_FILE, the keys that "
                "encrypt secrets at rest: make one with `openssl rand -base64 32` and keep it"
            )
        try:
            self.load_key_ring()
        except InvalidKeyRingError as error:
            raise ValueError(f"PUNCTUAL_KEY_RING{'_FILE' if self.key_ring is None else ''}: {error}") from error
        return self
