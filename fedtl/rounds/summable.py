"""Whether a strategy needs no more than the mean of the updates, found out by trying it."""

from __future__ import annotations

import copy

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError
from fedtl.strategies.declared import Declared
from fedtl.transport.local import LocalGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import RELEASES, TRAIN, WEIGHT

_SITES = 9
"""Enough for any of Flower's rules to work."""


def check_summable(strategy: Strategy, head: Arrays) -> None:
    """Refuse a strategy that tells single updates from their mean.

    A copy of the strategy combines invented updates of nine sites, with an outlier among them, and
    then nine times their mean. Where the results differ it looks at single updates, which secure
    aggregation hides. A strategy may say so itself by ``needs_updates = True``: invented updates
    need not show it, if none of them reaches a bound on lengths.

    Parameters
    ----------
    head : mapping of str to NDArray
        Of the shape that is trained.

    Raises
    ------
    StrategyError
        With code ``strategy.needs-updates``.
    """
    says = Declared.of(strategy)
    if says.needs_updates:
        raise _needs_updates(strategy)
    if not says.gradients:
        return  # statistics are made to be added up
    rng = np.random.default_rng(1)
    updates: list[Arrays] = [
        {
            n: np.asarray(v + rng.normal(size=v.shape) * (50 if at == 4 else 1), np.float32)
            for n, v in head.items()
        }
        for at in range(_SITES)
    ]
    mean: Arrays = {n: np.asarray(np.mean([u[n] for u in updates], axis=0)) for n in head}
    single, summed = (_combined(strategy, head, sent) for sent in (updates, [mean] * _SITES))
    for name, values in single.items():
        scale = float(np.abs(values).max()) or 1.0
        if float(np.abs(values - summed[name]).max()) > 1e-3 * scale:
            raise _needs_updates(strategy)


def _needs_updates(strategy: Strategy) -> StrategyError:
    return StrategyError(
        f"{type(strategy).__name__} needs the sites' single updates (it tells them from their "
        "mean), and secure aggregation hides them.",
        next_step="Set transport.secure = false, or choose a strategy that averages, such as "
        "fedavg.",
        code="strategy.needs-updates",
    )


def _combined(strategy: Strategy, head: Arrays, updates: list[Arrays]) -> Arrays:
    tried = copy.deepcopy(strategy)
    grid = LocalGrid(ClientApp(), [f"invented-{at}" for at in range(_SITES)])
    first = len(Declared.of(strategy).mechanisms)  # gradients come last
    list(tried.configure_train(first, pack(head), ConfigRecord(), grid))
    replies = []
    for node, update in zip(grid.get_node_ids(), updates, strict=True):
        metrics = MetricRecord({WEIGHT: 1.0, RELEASES: 0})
        asked = Message(RecordDict(), node, TRAIN)
        replies.append(
            Message(RecordDict({"arrays": pack(update), "metrics": metrics}), reply_to=asked)
        )
    arrays, _ = tried.aggregate_train(first, replies)
    return {} if arrays is None else unpack(arrays)
