"""How a message names a client-side step: never as code, and without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedtl.errors import ConfigError, FedtlError

_MOST_TEXT = 10_000

Option = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ObjectiveName:
    """What a message says of an objective: never code.

    Attributes
    ----------
    name : str
        A known name, or ``path/to/file.py:Class``.
    options : mapping of str to bool, int, float or str
        Keyword arguments of the class.
    source : str
        SHA-256 (hex) of the file that holds the class; empty where a package does.
    """

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        plain = all(isinstance(v, bool | int | float | str) for v in self.options.values())
        if not (isinstance(self.name, str) and isinstance(self.source, str) and plain):
            raise FedtlError(
                f"The objective '{self.name}' has options that are no plain values.",
                next_step="Give numbers, texts and truth values.",
                code="objective.invalid",
            )

    @classmethod
    def of(cls, name: str, **options: Option) -> ObjectiveName:
        """Name an objective, with the digest of its file if it is in one.

        Raises
        ------
        ConfigError
            The file cannot be read.
        """
        return cls(name, options, digest_of(file_of(name)))

    def to_json(self) -> str:
        """Return it as canonical JSON."""
        parts = {"name": self.name, "options": dict(self.options), "source": self.source}
        return json.dumps(parts, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ObjectiveName:
        """Read it; anything that is not exactly an objective's name is refused.

        Raises
        ------
        FedtlError
            With code ``message.invalid`` or ``objective.invalid``.
        """
        try:
            if len(text) > _MOST_TEXT:
                raise ValueError("too long")
            parts = json.loads(text)
            return cls(**{**parts, "options": dict(parts["options"])})
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise FedtlError(
                "The message carries no readable objective.",
                next_step="Server and site must run the same version of fedtl.",
                code="message.invalid",
            ) from error


def file_of(name: str) -> Path | None:
    """Return the file that a name stands for, if it stands for one."""
    place = name.rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


def digest_of(file: Path | None) -> str:
    """Return the SHA-256 (hex) of a file; empty without one.

    Raises
    ------
    ConfigError
        It cannot be read.
    """
    if file is None:
        return ""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"The objective file '{file}' cannot be read: {error.strerror}.",
            next_step="Check the path before the colon.",
        ) from error
