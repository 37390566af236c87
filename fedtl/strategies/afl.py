"""Agnostic federated learning: good for the worst mixture of the sites.

Mohri, Sivek, Suresh, "Agnostic Federated Learning", ICML 2019, arXiv:1902.00146: minimise over the
head the maximum over lambda in the simplex of sum lambda_k F_k; with several local steps as in Deng
et al., "Distributionally Robust Federated Averaging", NeurIPS 2020, arXiv:2102.12660.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedtl.strategies.fair import Watching
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import records


class AgnosticFedAvg(Watching):
    """Average by weights lambda that rise with the sites' losses.

    Parameters
    ----------
    rate : float
        gamma: after an evaluation lambda <- projection of (lambda + gamma F) onto the simplex.
    """

    def __init__(self, *, rate: float = 0.1) -> None:
        if not rate > 0:
            raise ValueError(f"rate = {rate} must be above 0")
        super().__init__()
        self.rate = rate
        self.mixture: dict[str, float] = {}

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Move lambda towards the sites that lose most."""
        combined = super().aggregate_evaluate(server_round, replies)
        sites = sorted(self.losses)
        even = 1 / max(len(sites), 1)
        before = np.array([self.mixture.get(site, even) for site in sites])
        losses = np.array([self.losses[site] for site in sites])
        after = on_simplex(before + self.rate * losses)
        self.mixture = {site: float(v) for site, v in zip(sites, after, strict=True)}
        return combined

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the heads by lambda; where all that answered have none of it, alike."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        heads = [unpack(records(reply.content, ArrayRecord)[0]) for reply in valid]
        even = 1 / max(len(self.mixture), 1)
        own = [self.mixture.get(self.site(r.metadata.src_node_id), even) for r in valid]
        shares = np.array(own)
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(valid), 1 / len(valid))
        mean = {
            name: np.asarray(
                sum(s * own[name] for s, own in zip(shares, heads, strict=True)), np.float32
            )
            for name in heads[0]
        }
        return pack(mean), MetricRecord()


def on_simplex(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the closest point whose entries are from 0 and sum to 1.

    Duchi et al., "Efficient Projections onto the l1-Ball", ICML 2008, figure 1.

    Examples
    --------
    >>> on_simplex(np.array([0.5, 0.5, 0.6])).round(4).tolist()
    [0.3, 0.3, 0.4]
    >>> on_simplex(np.array([3.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(ordered > excess)[-1])
    return np.asarray((values - excess[last]).clip(min=0))
