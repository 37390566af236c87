"""Small data sets and requests for tests of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fedtl.privacy.events import GaussianEvent
from fedtl.privacy.ledger import DataSet, Ledger, RequestKey

EVENT = GaussianEvent(4.0, 1)


def dataset(names: Iterable[object], groups: Iterable[str] | None = None, salt: bytes = b"s"):
    digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    return DataSet.of(rows, groups=None if groups is None else list(groups), salt=salt)


DATA = dataset(range(5))


def request(round_: int = 1, **changes: str) -> RequestKey:
    values = {"run": "run-1", "message": "train", "site": "north", "content": "q"} | changes
    return RequestKey(round=round_, **values)


def filled(path: Path, entries: int = 3) -> Path:
    """Write a ledger of charges and one reply behind the last of them."""
    with Ledger.open(path) as ledger:
        for round_ in range(1, entries):
            ledger.charge(request(round_), DATA, EVENT, note="föderiert")
        ledger.keep_reply(request(entries - 1), b"reply")
    return path
