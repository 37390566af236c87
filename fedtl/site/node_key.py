"""The key by which a coordinator's server knows this site: ECDSA P-384 in OpenSSH's format.

It is made at the site. Its public half is mailed to the coordinator; its private half never leaves.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedtl.errors import ConfigError
from fedtl.home import write_atomic

NODE_KEY, NODE_PUBLIC = "node.key", "node.pub"
"""In a state folder: the private half, for its owner's eyes only, and the public one."""
_LARGEST = 1 << 12


def make_node_key(folder: Path) -> Path:
    """Return a state folder's public key; the pair, or its lost public half, is made if need be.

    Raises
    ------
    ConfigError
        The private key is not one of this kind.
    CacheError
        The folder cannot be written.
    """
    private, public = folder / NODE_KEY, folder / NODE_PUBLIC
    if not private.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        made = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        write_atomic(private, lambda file: file.write(made), mode=0o600)
        public.unlink(missing_ok=True)  # of a private key that is gone
    if not public.exists():
        told = _public_of(private)
        write_atomic(public, lambda file: file.write(told + b"\n"), mode=0o644)
    return public


def node_fingerprint(public: Path) -> str:
    """Return the fingerprint of a public key as ``ssh-keygen -l`` shows it.

    Raises
    ------
    ConfigError
        The file is missing, or no public key of this kind.
    """
    try:
        with public.open("rb") as file:
            text = file.read(_LARGEST)
        key = serialization.load_ssh_public_key(text)
    except OSError as error:
        raise ConfigError(
            f"The key '{public}' cannot be read ({error.strerror}).",
            next_step="Check the path; `fedtl site init` or `fedtl site join` makes a site's key.",
        ) from error
    except Exception as error:  # of many kinds, as the file comes from outside
        raise _no_key(public) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise _no_key(public)
    body = base64.b64decode(text.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def _public_of(private: Path) -> bytes:
    try:
        key = serialization.load_ssh_private_key(private.read_bytes(), None)
    except Exception as error:  # of many kinds, as somebody may have put any file here
        raise ConfigError(
            f"The key '{private}' is damaged.",
            next_step="Put it back from a copy; or delete it, run `fedtl site join` again for a "
            "new one, and send the coordinator the new node.pub.",
        ) from error
    return key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )


def _no_key(public: Path) -> ConfigError:
    return ConfigError(
        f"'{public}' is not the public key of a site (ECDSA P-384 in OpenSSH's format).",
        next_step="Ask the site for its node.pub; `fedtl site init` makes it.",
    )
