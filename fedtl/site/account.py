"""A site's account for one request: paid for in the ledger before it is carried out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from fedtl.errors import FedtlError
from fedtl.privacy.ledger import Budget, DataSet, Ledger, RequestKey
from fedtl.privacy.plan import Release
from fedtl.types import Arrays, Update
from fedtl.wire.messages import Request


@dataclass(frozen=True, slots=True)
class Account:
    """What one private request means to a site's ledger.

    Attributes
    ----------
    ledger, dataset, budget : Ledger, DataSet and Budget or None
        The site's.
    key : RequestKey
        The request.
    keeps_replies : bool
        False where noise is seeded by the run (simulations only): there the same request gives the
        same bits again, which is no second release, so it is computed again under its charge.
    """

    ledger: Ledger
    dataset: DataSet
    budget: Budget | None
    key: RequestKey
    keeps_replies: bool

    def answered(self) -> Update | None:
        """Return the reply that was given before."""
        reply = self.ledger.reply_of(self.key) if self.keeps_replies else None
        return None if reply is None else update_of(reply)

    def pay(self, release: Release, times: int) -> int:
        """Pay for ``times`` releases; return those of this kind in the whole run so far.

        Raises
        ------
        PrivacyError
            With code ``privacy.budget``, or ``privacy.spent`` if the plan covers no more.
        """
        charged = self.ledger.charge(
            self.key,
            self.dataset,
            release.event(times),
            budget=self.budget,
            most_releases=release.count,
            note=release.describe(),
        )
        return charged.releases

    def keep(self, update: Update) -> Update:
        """Store a reply and return what may be handed out."""
        if not self.keeps_replies:
            return update
        return update_of(self.ledger.keep_reply(self.key, bytes_of(update)))


def content_of(request: Request) -> str:
    """Return a digest of everything that a request asks for."""
    asked: dict[str, object] = {
        "task": request.task.to_json() if request.task else "",
        "plan": request.plan.to_json() if request.plan else "",
        "seed": request.seed,
        "confusion": request.confusion,
        "arrays": _shapes(request.arrays),
    }
    if request.objective is not None:
        asked["objective"] = [request.objective.to_json(), _shapes(request.beside)]
    if request.personal is not None:
        asked["personal"] = request.personal.to_json()
    if request.compression is not None:
        asked["compress"] = request.compression.to_json()
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for _, values in (*sorted(request.arrays.items()), *sorted(request.beside.items())):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _shapes(arrays: Arrays) -> list[list[object]]:
    return [[name, str(values.dtype), values.shape] for name, values in sorted(arrays.items())]


def bytes_of(update: Update) -> bytes:
    """Return an update as safetensors, its numbers in the metadata."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(values) for name, values in update.arrays.items()}
    numbers = {"weight": repr(float(update.weight)), "releases": str(update.releases)}
    return save(arrays, metadata=numbers)


def update_of(reply: bytes) -> Update:
    """Read :func:`bytes_of`.

    Raises
    ------
    FedtlError
        With code ``reply.unreadable``: another version of fedtl wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(reply[8 : 8 + int.from_bytes(reply[:8], "little")])
        numbers = header["__metadata__"]
        return Update(load(reply), float(numbers["weight"]), int(numbers["releases"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FedtlError(
            "A stored reply cannot be read.",
            next_step="Use the version of fedtl that wrote it, or let the server ask anew.",
            code="reply.unreadable",
        ) from error
