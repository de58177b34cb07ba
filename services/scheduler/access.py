"""Puts together who may call: the gates, certificates and limits of both ports, as the settings ask for them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc.aio import ServerInterceptor

from libs.common.clock import Clock
from libs.common.logs import get_logger
from libs.common.rpc.deadlines import DeadlineInterceptor
from libs.common.rpc.tls import CertificateFiles, server_credentials
from services.scheduler.access_settings import AccessSettings
from services.scheduler.adapters.rpc.admission import AdmissionInterceptor
from services.scheduler.adapters.rpc.authentication import (
    Authenticator,
    CredentialAuthenticator,
    DevelopmentAuthenticator,
    EstablishedCaller,
)
from services.scheduler.adapters.rpc.service_identities import ServiceIdentityInterceptor, ServiceRole
from services.scheduler.adapters.tokens.json_web_tokens import SharedSecret, VerifyJsonWebToken
from services.scheduler.adapters.tokens.key_set import KeySet
from services.scheduler.adapters.tokens.key_sources import KeyFile, KeyUrl
from services.scheduler.usecases.ports.api_key_store import ApiKeyStore
from services.scheduler.usecases.verify_api_key import VerifyApiKey

log = get_logger(__name__)


class Access:
    """What stands in front of the services."""

    def __init__(self, settings: AccessSettings, api_keys: ApiKeyStore, clock: Clock) -> None:
        self._settings = settings
        self._api_keys = api_keys
        self._clock = clock
        self.key_set = _key_set(settings, clock)
        """The issuer's keys, if tokens are checked with any; somebody has to refresh it."""
        self.established = EstablishedCaller()
        """Who calls, for the services behind the gate."""

    def announce(self) -> None:
        """Say at the start what an operator should not have to find out."""
        settings = self._settings
        if settings.auth_mode == "development":
            log.warning("auth.development_mode", warning="every caller is believed; never use this mode with real data")
            return
        if settings.public_tls is None:
            log.warning("auth.public_plaintext", warning="credentials can be read on the way unless something encrypts")
        if settings.internal_tls is None:
            log.warning("auth.internal_plaintext", warning="whoever reaches the internal port is believed")

    def public_interceptors(self) -> Sequence[ServerInterceptor]:
        """Return the layers of the public port, outermost first, to go inside the one that maps errors."""
        return [self._deadlines(), AdmissionInterceptor(self._authenticator())]

    def internal_interceptors(self) -> Sequence[ServerInterceptor]:
        """Return the layers of the internal port; identities are known by certificates, so only where there is TLS."""
        if self._settings.internal_tls is None:
            return [self._deadlines()]
        names = {
            ServiceRole.DISPATCHER: self._settings.internal_dispatcher_names,
            ServiceRole.EXECUTOR: self._settings.internal_executor_names,
        }
        return [self._deadlines(), ServiceIdentityInterceptor(names)]

    def public_credentials(self) -> grpc.ServerCredentials | None:
        """Return what the public port shows its callers; None for plaintext."""
        return _credentials(self._settings.public_tls)

    def internal_credentials(self) -> grpc.ServerCredentials | None:
        """Return what the internal port shows and demands; None for plaintext."""
        return _credentials(self._settings.internal_tls)

    def _deadlines(self) -> DeadlineInterceptor:
        return DeadlineInterceptor(
            default_seconds=self._settings.default_deadline_seconds, max_seconds=self._settings.max_deadline_seconds
        )

    def _authenticator(self) -> Authenticator:
        settings = self._settings
        if settings.auth_mode == "development":
            return DevelopmentAuthenticator()
        api_keys = VerifyApiKey(self._api_keys, self._clock, cache_seconds=settings.api_key_cache_seconds)
        keys = SharedSecret(settings.jwt_hs256_secret.get_secret_value()) if settings.jwt_hs256_secret else self.key_set
        if keys is None:
            return CredentialAuthenticator(api_keys, None)
        return CredentialAuthenticator(
            api_keys,
            VerifyJsonWebToken(keys, settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds),
        )


def _key_set(settings: AccessSettings, clock: Clock) -> KeySet | None:
    if settings.jwt_jwks_file is not None:
        return KeySet(KeyFile(settings.jwt_jwks_file), clock)
    if settings.jwt_jwks_url:
        return KeySet(KeyUrl(settings.jwt_jwks_url), clock)
    return None


def _credentials(files: CertificateFiles | None) -> grpc.ServerCredentials | None:
    return None if files is None else server_credentials(files)
