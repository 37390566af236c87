"""An invitation like those that a coordinator writes, with a certificate of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedtl.privacy.secagg import Identity
from fedtl.site.invitation import Invitation


def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def invite(
    place: Path,
    site: str = "north",
    *,
    address: str = "fed.example.org:9443",
    coordinator: bytes = b"",
    recipes: tuple[str, ...] = (),
    certificates: str = "",
) -> Path:
    """Write ``SITE.invite`` into a folder."""
    invitation = Invitation(
        site=site,
        address=address,
        coordinator=(coordinator or Identity.new().public).hex(),
        recipes=recipes,
        certificates=certificates or certificate(),
    )
    path = place / f"{site}.invite"
    path.write_text(invitation.to_toml())
    return path
