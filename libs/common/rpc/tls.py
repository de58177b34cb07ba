"""Certificates from files, for both ends of a TLS connection, replaced while the process runs.

Certificates live for hours or days and whoever issues them rewrites the files. A server looks at its files at each new
connection, a client at each call (`reloading_channel`), so there is no clock and no restart in it. Files that cannot
be used, such as a certificate whose key is not written yet, leave the last good ones in force and are logged; when
those expire, peers refuse us, which is what an expired certificate is for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import Field, model_validator

from libs.common.logs import get_logger
from libs.common.settings import ServiceSettings

log = get_logger(__name__)

_Stamp = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class CertificateBundle:
    """What the files held at one moment, as PEM: our chain, its key, and the authority that peers are judged by."""

    chain: bytes
    key: bytes
    authority: bytes | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate chain, its private key and, for mutual TLS, the authority of the peers are."""

    certificate: Path
    key: Path
    authority: Path | None = None

    def read(self) -> CertificateBundle:
        """Return what the files hold.

        Raises:
            ValueError: a file is missing or unreadable, or the key is not the certificate's.
        """
        try:
            bundle = CertificateBundle(
                self.certificate.read_bytes(),
                self.key.read_bytes(),
                self.authority.read_bytes() if self.authority else None,
            )
        except OSError as error:
            raise ValueError(f"{error.filename}: {error.strerror}") from error
        if bundle.authority is not None:
            x509.load_pem_x509_certificates(bundle.authority)
        certificate = x509.load_pem_x509_certificates(bundle.chain)[0]
        if load_pem_private_key(bundle.key, password=None).public_key() != certificate.public_key():
            raise ValueError(f"the key in {self.key} is not the key of the certificate in {self.certificate}")
        return bundle

    def stamp(self) -> _Stamp:
        """Return what changes when a file is rewritten, replaced or made readable, without reading any."""
        return tuple(_mark(path) for path in (self.certificate, self.key, self.authority) if path is not None)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_ctime_ns


class WatchedCertificate:
    """The last good content of the files. gRPC asks from threads of its own, hence the lock."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files a first time; raises ValueError when they cannot be used."""
        self._files = files
        self._lock = threading.Lock()
        self._stamp: _Stamp = ()
        self.current = files.read()

    def changed(self) -> CertificateBundle | None:
        """Return the new content if the files changed to something usable since the last call, else None."""
        with self._lock:
            # Taken before the files are read: a change in between is seen by the next call.
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            try:
                found = self._files.read()
            except ValueError as error:
                # The message says it all, once for each state of the files.
                log.error("certificate.unusable", file=str(self._files.certificate), error=str(error))  # noqa: TRY400
                return None
            if found == self.current:
                return None
            self.current = found
        log.info("certificate.reloaded", file=str(self._files.certificate))
        return found


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files; with an authority among them, clients must show its certificate.

    Raises:
        ValueError: the files cannot be used.
    """
    watched = WatchedCertificate(files)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        found = watched.changed()
        return _server_configuration(found) if found is not None else None

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(watched.current),
        changed,  # type: ignore[arg-type] # None means no change; the stubs forget it
        require_client_authentication=files.authority is not None,
    )


def channel_credentials(bundle: CertificateBundle) -> grpc.ChannelCredentials:
    """Return the credentials of a client that shows its certificate and trusts that authority only."""
    return grpc.ssl_channel_credentials(bundle.authority, bundle.key, bundle.chain)


def _server_configuration(bundle: CertificateBundle) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(bundle.key, bundle.chain)], bundle.authority)


class InternalTlsSettings(ServiceSettings):
    """Mutual TLS between the services. The scheduler serves with it; dispatcher and executor call with it."""

    internal_tls_certificate: Path | None = Field(
        default=None, description="This service's certificate chain, a PEM file; read anew when it changes. Unset: none"
    )
    internal_tls_key: Path | None = Field(default=None, description="The certificate's private key, a PEM file.")
    internal_tls_ca: Path | None = Field(
        default=None, description="The authority that the other services' certificates come from, a PEM file."
    )

    @property
    def internal_tls(self) -> CertificateFiles | None:
        """The files for the internal connections; None when they are plaintext."""
        if not (self.internal_tls_certificate and self.internal_tls_key and self.internal_tls_ca):
            return None
        return CertificateFiles(self.internal_tls_certificate, self.internal_tls_key, self.internal_tls_ca)

    @model_validator(mode="after")
    def _internal_tls_is_whole_and_usable(self) -> Self:
        given = (self.internal_tls_certificate, self.internal_tls_key, self.internal_tls_ca)
        if any(given) and not all(given):
            raise ValueError("PUNCTUAL_INTERNAL_TLS_CERTIFICATE, _KEY and _CA are given together or not at all")
        if self.internal_tls is not None:
            self.internal_tls.read()
        return self
