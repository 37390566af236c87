"""FedAsync: every answer is mixed into the head when it comes.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", 2019, arXiv:1903.03934, algorithm 1 with
the polynomial staleness of section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fedtl.strategies.fedbuff import Stale
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.messages import records


class FedAsync(Stale):
    """Mix the sites' heads in when they come; for ``pace.buffer = 1``.

    Several that come at once are mixed in by age, those of one age as their mean.

    Parameters
    ----------
    alpha : float
        Share of a fresh head, in (0, 1].
    exponent : float
        a of s(tau) = (1 + tau)^-a, by which older ones count less.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.6,
        exponent: float = 0.5,
    ) -> None:
        if not 0 < alpha <= 1 or not exponent >= 0:
            raise ValueError(
                f"alpha = {alpha}, exponent = {exponent}: alpha is in (0, 1], exponent from 0"
            )
        super().__init__()
        self.alpha, self.exponent = alpha, exponent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Mix what came, the oldest first."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        ages = [age for _, age in self.moves(server_round, valid)]
        heads = [unpack(records(reply.content, ArrayRecord)[0]) for reply in valid]
        mixed: Arrays = {name: self.head[name] for name in heads[0]}
        for age in sorted(set(ages), reverse=True):
            alike = [head for head, own in zip(heads, ages, strict=True) if own == age]
            mixed = mix(mixed, mean_of(alike), self._share(age, len(alike)))
        return self.moved_to(mixed), MetricRecord()

    def _share(self, age: int, n: int) -> float:
        """Return what n heads of one age get together, were they mixed in one after the other."""
        return float(1 - (1 - self.alpha * (1 + age) ** -self.exponent) ** n)


def mean_of(heads: Sequence[Arrays]) -> Arrays:
    """Return the mean of some heads."""
    return {n: np.asarray(np.mean([h[n] for h in heads], axis=0), np.float32) for n in heads[0]}


def mix(head: Arrays, other: Arrays, share: float) -> Arrays:
    """Return (1 - share) x + share y.

    Examples
    --------
    >>> mix({"w": np.array([1.0])}, {"w": np.array([3.0])}, 0.25)["w"]
    array([1.5])
    """
    return {
        name: np.asarray((1 - share) * values + share * other[name], values.dtype)
        for name, values in head.items()
    }
