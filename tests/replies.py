"""Replies of made-up sites, good and bad, as a strategy or the round loop would get them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedtl.transport._identity import ensure_identity
from fedtl.types import Update
from fedtl.wire.arrays import pack
from fedtl.wire.messages import RELEASES, TRAIN, WEIGHT, update_reply

Head = Mapping[str, np.ndarray]


def request(node: int, kind: str = TRAIN) -> Message:
    ensure_identity()
    return Message(RecordDict(), node, kind)


def reply(
    node: int, arrays: Head, *, weight: float = 1.0, releases: int = 1, kind: str = TRAIN
) -> Message:
    return update_reply(request(node, kind), Update(arrays, weight, releases))


def raw_reply(node: int, arrays: ArrayRecord, **metrics: object) -> Message:
    """Return a reply that no site of ours would send."""
    values = {WEIGHT: 1.0, RELEASES: 1} | metrics
    record = MetricRecord({k: v for k, v in values.items() if v is not None})  # type: ignore[misc]
    return Message(RecordDict({"arrays": arrays, "metrics": record}), reply_to=request(node))


def heads(n: int, seed: int = 0, *, shape: tuple[int, int] = (3, 6)) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"weight": rng.normal(size=shape).astype(np.float32)} for _ in range(n)]


def packed(values: np.ndarray, name: str = "weight") -> ArrayRecord:
    return pack({name: values})
