"""A charter: who asks, in which run and by which recipe, signed by the coordinator.

It travels with every message of a deployed run, so that a site remembers nothing and the code that
carries messages need not be trusted: whoever changes a word has no signature for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from flwr.app import ConfigRecord, RecordDict
from pydantic import ValidationError

from fedtl.errors import FedtlError
from fedtl.privacy.secagg import Identity
from fedtl.privacy.secagg.keys import is_signed
from fedtl.recipe import Recipe

CHARTER = "charter"
"""Key of its record in a message."""
_PURPOSE = b"fedtl charter 1\n"
_LONGEST_RUN = 100
_LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Charter:
    """What a coordinator signed.

    Attributes
    ----------
    coordinator : str
        Fingerprint of its key (SHA-256, hexadecimal).
    run : str
        Identity of the run; it outlives the processes and Flower's own runs.
    recipe : Recipe
        What the run does.
    digest : str
        Of the recipe.
    """

    coordinator: str
    run: str
    recipe: Recipe
    digest: str


def sign_charter(key: Identity, *, run: str, recipe: Recipe) -> ConfigRecord:
    """Return the record of a charter.

    Parameters
    ----------
    key : Identity
        The coordinator's.
    run : str
        Up to 100 characters.
    """
    body = json.dumps({"run": run, "recipe": recipe.model_dump(mode="json")}).encode()
    return ConfigRecord({"body": body, "key": key.public, "signature": key.sign(_PURPOSE + body)})


def read_charter(content: RecordDict) -> Charter | None:
    """Read and verify the charter of a message; None if it has none.

    Raises
    ------
    FedtlError
        With code ``charter.invalid`` (forged or malformed) or ``charter.recipe`` (of another
        version of fedtl).
    """
    record = content.get(CHARTER)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise _invalid()
    body, key, signature = (record.get(name) for name in ("body", "key", "signature"))
    if not (isinstance(body, bytes) and isinstance(key, bytes) and isinstance(signature, bytes)):
        raise _invalid()
    if len(body) > _LARGEST:
        raise _invalid()
    return _verified(body, key, signature)


@lru_cache(maxsize=16)
def _verified(body: bytes, key: bytes, signature: bytes) -> Charter:
    """Every message of a run carries the same bytes, and reading them costs a millisecond."""
    if not is_signed(_PURPOSE + body, signature, key):
        raise _invalid()
    try:
        said = json.loads(body)
        run, tables = said["run"], said["recipe"]
    except (ValueError, KeyError, TypeError) as error:
        raise _invalid() from error
    if not isinstance(run, str) or not 0 < len(run) <= _LONGEST_RUN or not run.isprintable():
        raise _invalid()
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        raise FedtlError(
            "The charter's recipe is none that this version of fedtl knows.",
            next_step="Server and site must run the same version of fedtl.",
            code="charter.recipe",
        ) from error
    return Charter(sha256(key).hexdigest(), run, recipe, recipe.digest())


def _invalid() -> FedtlError:
    return FedtlError(
        "The charter of a message is forged or malformed.",
        next_step="Ask the coordinator; nothing was computed.",
        code="charter.invalid",
    )
