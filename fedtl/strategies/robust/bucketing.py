"""Bucketing: updates are shuffled and averaged in small buckets, and the buckets combined.

Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, arXiv:2006.09365, algorithm 1: a random permutation, then the mean of every s in a row.
Buckets differ less than sites do. One bad site spoils its whole bucket, so the rule behind it must
bear as many bad buckets as there are bad sites, of n / s.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.rng import stream
from fedtl.strategies.robust.mixing import Mixing
from fedtl.strategies.updates import Matrix


def bucket_means(updates: Matrix, size: int, rng: np.random.Generator) -> Matrix:
    """Return the means of ``[n, p]`` updates in ⌈n / size⌉ random buckets; the last may be smaller.

    Examples
    --------
    >>> bucket_means(np.array([[1.0], [2.0], [3.0]]), 3, np.random.default_rng(1))
    array([[2.]])
    """
    order = rng.permutation(len(updates))
    starts = range(0, len(updates), size)
    return np.stack([updates[np.sort(order[at : at + size])].mean(axis=0) for at in starts])


class Bucketing(Mixing):
    """Averages updates in random buckets.

    Which sites share a bucket follows from the run's seed, the round, and the sites' order by name.

    Parameters
    ----------
    size : int
        s, updates in a bucket; 1 changes nothing but weights.
    """

    def __init__(self, inner: Strategy, *, size: int = 2) -> None:
        if size < 1:
            raise ValueError(f"size = {size} must be from 1")
        super().__init__(inner)
        self.size, self._seed = size, 0

    @property
    def least(self) -> int:
        """Replies that make as many buckets as the strategy inside needs."""
        return (super().least - 1) * self.size + 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the run's seed, and let the strategy inside ask."""
        seed = config.get("seed")
        self._seed = seed if isinstance(seed, int) else 0
        return super().configure_train(server_round, arrays, config, grid)

    def mixed(self, updates: Matrix, server_round: int) -> Matrix:
        """Return the means of the buckets."""
        return bucket_means(updates, self.size, stream(self._seed, "buckets", server_round))
