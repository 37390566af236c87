"""An invitation: the one small file by which a coordinator tells a site how to reach it.

It holds nothing secret. Who could change it on its way could lead a site to another server, so both
sides show its fingerprint and compare it by another way than the file took.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import AfterValidator, Field, ValidationError

from fedtl.errors import ConfigError
from fedtl.recipe.explain import TomlKind
from fedtl.recipe.tables import Table
from fedtl.site.names import ADDRESS, NAME, Fingerprint

INVITATION_FILE = "invitation.toml"
"""In a site's state folder, once it has joined."""
_LARGEST = 1 << 20


def _key(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("a key is 64 hexadecimal digits")
    return text


def _certificates(text: str) -> str:
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise ValueError("these are no certificates in PEM") from error
    return text


class Invitation(Table):
    """What a site needs to know of a federation."""

    version: Literal[1] = 1
    site: str = Field(pattern=NAME, description="the site that is invited")
    address: str = Field(pattern=ADDRESS, description="host:port of the server")
    coordinator: Annotated[str, AfterValidator(_key)] = Field(
        description="the coordinator's public key, by which it signs its runs"
    )
    recipes: tuple[Fingerprint, ...] = Field((), description="recipes it is about; empty: any")
    certificates: Annotated[str, AfterValidator(_certificates)] = Field(
        description="that the server's certificate is signed by"
    )

    @property
    def fingerprint(self) -> str:
        """Of the coordinator's key: SHA-256, hexadecimal digits."""
        return fingerprint_of(bytes.fromhex(self.coordinator))

    def to_toml(self) -> str:
        """Return the text of the file."""
        return tomli_w.dumps(self.model_dump(), multiline_strings=True)


def fingerprint_of(public: bytes) -> str:
    """Return the fingerprint of a public key, as policies name it.

    Examples
    --------
    >>> fingerprint_of(bytes(32))[:16]
    '66687aadf862bd77'
    """
    return hashlib.sha256(public).hexdigest()


_INVITATION = TomlKind(
    "invitation",
    Invitation,
    absent="Ask the coordinator for it: `fedtl server invite` writes it.",
    look_up="Ask the coordinator for a new one.",
    error=ConfigError,
)


def read_invitation(path: Path) -> Invitation:
    """Read and check an invitation, which comes from outside.

    Raises
    ------
    ConfigError
        It is missing, too large, or not an invitation.
    """
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise ConfigError(
            f"'{path}' is too large for an invitation.", next_step=_INVITATION.look_up
        )
    try:
        return Invitation.model_validate(_INVITATION.read(path))
    except ValidationError as error:
        raise _INVITATION.explain(error, str(path)) from error
