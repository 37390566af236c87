"""Keys: X25519 for agreement, HKDF-SHA256 for derivation, AES-256-GCM boxes, Ed25519 identities."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedtl.privacy.secagg.codec import refusal

KEY_BYTES, SIGNATURE_BYTES = 32, 64
BOX_OVERHEAD = 12 + 16


@dataclass(frozen=True, slots=True)
class Identity:
    """A site's lasting Ed25519 key.

    Attributes
    ----------
    private : bytes
        32 bytes, which never leave the site.
    """

    private: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Identity:
        """Make one from the operating system's entropy."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The 32 public bytes by which other sites know this one."""
        return self._key().public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """Return a signature of 64 bytes."""
        return self._key().sign(text)

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)


def is_signed(text: bytes, signature: bytes, public: bytes) -> bool:
    """Say whether the owner of an identity signed a text."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_of(private: bytes) -> bytes:
    """Return the public half of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Agreement:
    """A private X25519 key, ready for many agreements."""

    def __init__(self, private: bytes, session: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self._session = session

    def key(self, public: bytes, purpose: str, *names: str) -> bytes:
        """Derive the 32 bytes that only the owners of both keys know, for one purpose.

        Raises
        ------
        PrivacyError
            With code ``secagg.malformed``: a public key of low order.
        """
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise refusal("malformed", "A public key is none.") from error
        return derive(shared, self._session, purpose, *names)


def derive(secret: bytes, session: bytes, purpose: str, *names: str) -> bytes:
    """Derive 32 bytes for one purpose in one session (RFC 5869)."""
    info = "\x1f".join(("fedtl.secagg", purpose, *names)).encode()
    return HKDF(SHA256(), length=KEY_BYTES, salt=session, info=info).derive(secret)


def seal(key: bytes, text: bytes) -> bytes:
    """Return a box that only the key opens."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, text, None)


def unseal(key: bytes, box: bytes) -> bytes | None:
    """Open a box; None if it was not sealed under this key."""
    try:
        return AESGCM(key).decrypt(box[:12], box[12:], None)
    except (InvalidTag, ValueError):
        return None
