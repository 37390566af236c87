"""The folder's own certificates: an authority, the server's for sites, one for loopback."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtl.errors import ConfigError
from fedtl.home import write_atomic
from fedtl.launch.coordinator.config import PRIVATE_FILE, TLS

CA_DAYS, SERVER_DAYS = 3653, 397
_SKEW = timedelta(days=1)  # clocks of sites may be slow
_LOOPBACK = ("127.0.0.1", "localhost")


def make_authority(folder: Path, name: str) -> None:
    """Make a certificate authority and the loopback certificate in a coordinator's folder."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _name(f"fedtl {name}")
    certificate = (
        _started(subject, subject, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_known_by(key.public_key()), critical=False)
        .sign(key, SHA384())
    )
    _write(folder / TLS / "ca", certificate, key)
    _make(folder, "loopback", _LOOPBACK, CA_DAYS)


def make_server_certificate(folder: Path, host: str) -> None:
    """Make, or make anew, the certificate that sites see, signed by the folder's authority.

    Raises
    ------
    ConfigError
        The authority's files are missing or damaged.
    """
    _make(folder, "server", (host,), SERVER_DAYS)


def expires(path: Path) -> datetime:
    """Return until when a certificate holds.

    Raises
    ------
    ConfigError
        There is no certificate.
    """
    return read_certificates(path)[0].not_valid_after_utc


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"'{path}' holds no certificate in PEM.",
            next_step="Name a PEM file (-----BEGIN CERTIFICATE-----).",
            code="server.certificate",
        ) from error


def _make(folder: Path, stem: str, hosts: tuple[str, ...], days: int) -> None:
    authority = read_certificates(folder / TLS / "ca.crt")[0]
    signer = _read_key(folder / TLS / "ca.key")
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _started(_name(hosts[0]), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(map(_alternative, hosts)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(_known_by(key.public_key()), critical=False)
        .add_extension(_signed_by(signer.public_key()), critical=False)
        .sign(signer, SHA384())
    )
    _write(folder / TLS / stem, certificate, key)


def _started(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _SKEW,
        not_valid_after=now + timedelta(days=days),
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _known_by(public: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _signed_by(public: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_authority(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _no_authority(path)
    return key


def _no_authority(path: Path) -> ConfigError:
    return ConfigError(
        f"The key of the folder's certificate authority, '{path}', is missing or damaged.",
        next_step="Put it back from a copy; with another authority every site needs a new "
        "invitation.",
        code="server.certificate",
    )


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = certificate.public_bytes(Encoding.PEM)
    write_atomic(stem.with_suffix(".key"), lambda file: file.write(private), mode=PRIVATE_FILE)
    write_atomic(stem.with_suffix(".crt"), lambda file: file.write(public), mode=PRIVATE_FILE)
