"""How names, addresses and fingerprints are written in the files of sites and coordinators."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$"
ADDRESS = r"^[^\s/:]+:[0-9]{1,5}$"


def _fingerprint(text: Any) -> Any:
    """Accept the colons and capitals of ``openssl x509 -fingerprint -sha256``."""
    plain = text.replace(":", "").lower() if isinstance(text, str) else ""
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise ValueError("a fingerprint is a SHA-256 of 64 hexadecimal digits")
    return plain


Fingerprint = Annotated[str, BeforeValidator(_fingerprint)]


def spoken(fingerprint: str) -> str:
    """Return a fingerprint as people read it to each other, four digits at a time.

    Examples
    --------
    >>> spoken("0123456789ab")
    '0123 4567 89ab'
    """
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))
