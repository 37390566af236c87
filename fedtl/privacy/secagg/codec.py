"""Small messages as canonical JSON, read without trust."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from fedtl.errors import PrivacyError

MAX_BYTES = 1 << 26
_LONGEST_NAME = 200


def refusal(code: str, problem: str, next_step: str = "") -> PrivacyError:
    """Return the error of a protocol that is not kept; its code is ``secagg.<code>``."""
    return PrivacyError(problem, next_step=next_step, code=f"secagg.{code}")


def dump(value: Mapping[str, Any]) -> bytes:
    """Return canonical JSON; bytes become base64."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return text.encode()


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no place in a message")


def fields(body: bytes, *names: str) -> list[Any]:
    """Return the values of a message that has exactly these fields.

    Raises
    ------
    PrivacyError
        With code ``secagg.malformed``.
    """
    try:
        if len(body) > MAX_BYTES:
            raise ValueError("too long")
        value = json.loads(body)
        if not isinstance(value, dict) or set(value) != set(names):
            raise ValueError("other fields")
    except (ValueError, TypeError, RecursionError) as error:
        raise _malformed(f"a message with {', '.join(names)}") from error
    return [value[name] for name in names]


def as_bytes(value: object, size: int) -> bytes:
    """Read ``size`` bytes."""
    try:
        if isinstance(value, str) and len(raw := b64decode(value, validate=True)) == size:
            return raw
    except (binascii.Error, ValueError):
        pass
    raise _malformed(f"{size} bytes")


def as_name(value: object) -> str:
    """Read a site's name."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME:
        return value
    raise _malformed("a name")


def as_names(value: object) -> tuple[str, ...]:
    """Read a sorted list of different names."""
    names = tuple(as_name(v) for v in value) if isinstance(value, list) else ()
    if not names or list(names) != sorted(set(names)):
        raise _malformed("a sorted list of names")
    return names


def as_boxes(value: object, size: int) -> dict[str, bytes]:
    """Read ``size`` bytes for each of some names."""
    if not isinstance(value, dict):
        raise _malformed("bytes by name")
    return {as_name(name): as_bytes(box, size) for name, box in value.items()}


def _malformed(what: str) -> PrivacyError:
    return refusal("malformed", f"A message of secure aggregation is not {what}.")
