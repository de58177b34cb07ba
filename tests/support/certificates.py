"""A private certificate authority for tests: it issues what a test asks for, also what should be refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.rpc.tls import CertificateFiles

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, authority: bytes | None = None) -> CertificateFiles:
        """Write, or overwrite, the files of a service."""
        folder.mkdir(exist_ok=True)
        (folder / "tls.crt").write_bytes(self.certificate)
        (folder / "tls.key").write_bytes(self.key)
        if authority is not None:
            (folder / "ca.crt").write_bytes(authority)
        return CertificateFiles(
            folder / "tls.crt", folder / "tls.key", folder / "ca.crt" if authority is not None else None
        )


@dataclass
class Authority:
    """A self-signed authority."""

    name: str = "test authority"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @cached_property
    def certificate(self) -> bytes:
        """The authority's own certificate, as PEM."""
        now = datetime.now(UTC)
        builder = _builder(self.name, self.name, self.key.public_key(), now - DAY, now + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return _pem(builder.sign(self.key, hashes.SHA256()))

    def issue(self, *names: str, common_name: str = "service", valid_days: tuple[int, int] = (-1, 1)) -> Issued:
        """Issue a certificate for 127.0.0.1 and for names: URIs where they look so, else DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        since, until = valid_days
        builder = _builder(common_name, self.name, key.public_key(), now + since * DAY, now + until * DAY)
        builder = builder.add_extension(x509.SubjectAlternativeName(_names(names)), critical=False)
        return Issued(
            _pem(builder.sign(self.key, hashes.SHA256())),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def _names(names: Sequence[str]) -> list[x509.GeneralName]:
    given = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
    return [LOOPBACK, *given]


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
