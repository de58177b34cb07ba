"""The settings that say who may call: how callers are known, over what connections, and how much one call may take.

A combination that would be open by mistake does not start: development mode beyond this machine, production in
plaintext that nobody asked for, tokens that nobody could check.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from libs.common.rpc.tls import CertificateFiles, InternalTlsSettings
from libs.common.settings import Address, OptionalAddress

MIN_SHARED_SECRET = 32
"""Characters; RFC 7518 asks for as many bits as the hash has."""

Names = Annotated[tuple[str, ...], NoDecode]


class AccessSettings(InternalTlsSettings):
    """Addresses, identities, certificates and limits of the scheduler's two ports."""

    scheduler_public_address: Address = Field(
        default="127.0.0.1:7400", description="Where the public API listens, host:port. Default 127.0.0.1:7400."
    )
    scheduler_internal_address: Address = Field(
        default="127.0.0.1:7401",
        description="Where dispatchers and executors reach the internal API, host:port. Default 127.0.0.1:7401.",
    )
    scheduler_health_address: OptionalAddress = Field(
        default="",
        description="Where grpc.health.v1 is also served, always in plaintext and from the first second on, for probes "
        "that speak no TLS, host:port. Default none: on the public port only.",
    )
    auth_mode: Literal["production", "development"] = Field(
        description="How callers are known. `production`: by API keys and tokens. `development`: by the metadata "
        "x-punctual-org, which is believed; refused on an address that is not loopback. Required: there is no safe "
        "default."
    )
    jwt_issuer: str = Field(default="", description="The `iss` that tokens must have. Empty: no tokens, API keys only.")
    jwt_audience: str = Field(default="", description="The `aud` that tokens must have. Required with an issuer.")
    jwt_jwks_file: Path | None = Field(
        default=None, description="The issuer's public keys, a JSON Web Key Set: RS256, ES256 and EdDSA."
    )
    jwt_jwks_url: str = Field(
        default="", description="The same by its https address (http: on loopback only). One of file, URL and secret."
    )
    jwt_hs256_secret: SecretStr | None = Field(
        default=None, description="The secret that tokens are signed with instead, at least 32 characters: HS256 only."
    )
    jwt_refresh_seconds: float = Field(
        default=300.0, ge=10, le=3000, description="How often the key set is read, seconds, 10-3,000. Default 300."
    )
    jwt_leeway_seconds: float = Field(
        default=30.0, ge=0, le=60, description="How far the issuer's clock may be off, seconds, 0-60. Default 30."
    )
    api_key_cache_seconds: float = Field(
        default=5.0,
        ge=0,
        le=60,
        description="How long an API key is believed without asking the database, so how long a revoked one may still "
        "work, seconds, 0-60. Default 5.",
    )
    public_tls_certificate: Path | None = Field(
        default=None, description="The public port's certificate chain, a PEM file; read anew when it changes."
    )
    public_tls_key: Path | None = Field(default=None, description="The certificate's private key, a PEM file.")
    allow_plaintext: bool = Field(
        default=False,
        description="Serve without TLS in production, because something in front or beside (a mesh) does it.",
    )
    internal_dispatcher_names: Names = Field(
        default=("dispatcher",),
        description="Names in certificates (DNS or URI) of a dispatcher, separated by commas. Default dispatcher.",
    )
    internal_executor_names: Names = Field(
        default=("executor",),
        description="Names in certificates (DNS or URI) of an executor, separated by commas. Default executor.",
    )
    grpc_reflection: bool | None = Field(
        default=None, description="Whether the ports describe their services to anybody. Default: in development only."
    )
    max_concurrent_rpcs: int = Field(
        default=2_000,
        ge=1,
        le=100_000,
        description="Calls at a time on the public port, watches included; more are refused. 1-100,000, default 2,000.",
    )
    default_deadline_seconds: float = Field(
        default=30.0, gt=0, le=600, description="How long a call without a deadline may take, up to 600. Default 30."
    )
    max_deadline_seconds: float = Field(
        default=120.0, gt=0, le=600, description="How long any call but a stream may take, up to 600. Default 120."
    )

    @property
    def public_tls(self) -> CertificateFiles | None:
        """The files for the public port; None when it is plaintext."""
        if not (self.public_tls_certificate and self.public_tls_key):
            return None
        return CertificateFiles(self.public_tls_certificate, self.public_tls_key)

    @property
    def reflects(self) -> bool:
        """Whether the ports describe their services."""
        return self.auth_mode == "development" if self.grpc_reflection is None else self.grpc_reflection

    @field_validator("internal_dispatcher_names", "internal_executor_names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("jwt_jwks_url")
    @classmethod
    def _key_url_cannot_be_forged(cls, value: str) -> str:
        loopback = ("http://127.0.0.1:", "http://localhost:")
        if value and not value.startswith(("https://", *loopback)):
            raise ValueError("must be https, for keys that anybody on the way can replace prove nothing")
        return value

    @field_validator("jwt_hs256_secret")
    @classmethod
    def _secret_cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SHARED_SECRET:
            raise ValueError(f"must have at least {MIN_SHARED_SECRET} characters")
        return value

    @model_validator(mode="after")
    def _tokens_can_be_checked(self) -> Self:
        sources = [self.jwt_jwks_file, self.jwt_jwks_url, self.jwt_hs256_secret]
        given = sum(bool(source) for source in sources)
        if given > 1:
            raise ValueError("one of PUNCTUAL_JWT_JWKS_FILE, _JWKS_URL and _HS256_SECRET, not several")
        if bool(given) != bool(self.jwt_issuer) or bool(self.jwt_issuer) != bool(self.jwt_audience):
            raise ValueError("PUNCTUAL_JWT_ISSUER, PUNCTUAL_JWT_AUDIENCE and a source of keys are given together")
        return self

    @model_validator(mode="after")
    def _public_tls_is_whole_and_usable(self) -> Self:
        if bool(self.public_tls_certificate) != bool(self.public_tls_key):
            raise ValueError("PUNCTUAL_PUBLIC_TLS_CERTIFICATE and _KEY are given together or not at all")
        if self.public_tls is not None:
            self.public_tls.read()
        return self

    @model_validator(mode="after")
    def _nothing_is_open_by_mistake(self) -> Self:
        if self.auth_mode == "development":
            for address in (self.scheduler_public_address, self.scheduler_internal_address):
                if not is_loopback(address):
                    raise ValueError(
                        f"PUNCTUAL_AUTH_MODE=development believes every caller and must not listen on {address}: use a "
                        "loopback address"
                    )
        elif not self.allow_plaintext:
            missing = [
                name for name, files in (("PUBLIC", self.public_tls), ("INTERNAL", self.internal_tls)) if files is None
            ]
            if missing:
                names = " and ".join(f"PUNCTUAL_{name}_TLS_CERTIFICATE" for name in missing)
                raise ValueError(
                    f"PUNCTUAL_AUTH_MODE=production needs {names}; where a mesh encrypts and authenticates instead, "
                    "say so with PUNCTUAL_ALLOW_PLAINTEXT=true"
                )
        return self


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost may mean anything."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
