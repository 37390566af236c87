"""FedDyn: a regulariser at every site that makes the sites' optima agree with the federation's.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, arXiv:2111.04263,
algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedtl.strategies.averaging import Averaging
from fedtl.strategies.local import sites_in_all
from fedtl.train.objective_name import ObjectiveName
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.objective import with_objective


class FedDyn(Averaging):
    """Average, and subtract h / alpha, the mean of the sites' gradients at their solutions.

    Sites keep g_i (:class:`fedtl.train.objectives.dynamic.DynamicRegulariser`); their answers are
    as long as FedAvg's, and the server needs their mean only.

    Parameters
    ----------
    alpha : float
        Strength of the regulariser; a head's drift within a round is of the size gradient / alpha.
    """

    def __init__(self, *, alpha: float = 0.1) -> None:
        if not alpha > 0:
            raise ValueError(f"alpha = {alpha} must be above 0")
        super().__init__()
        self.alpha = alpha
        self.drift: Arrays = {}
        self._head: Arrays = {}
        self._sites = 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for the regulariser beside the loss."""
        self._head, self._sites = unpack(arrays), sites_in_all(grid)
        self.drift = self.drift or {name: v * 0 for name, v in self._head.items()}
        messages = super().configure_train(server_round, arrays, config, grid)
        return with_objective(messages, ObjectiveName.of("feddyn", alpha=self.alpha))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the heads and take the sites' drift off."""
        replies = list(replies)
        average, metrics = super().aggregate_train(server_round, replies)
        if average is None:
            return None, metrics
        mean, share = unpack(average), sum(r.has_content() for r in replies) / self._sites
        self.drift = next_drift(self.drift, self._head, mean, alpha=self.alpha, share=share)
        return pack({name: mean[name] - h / self.alpha for name, h in self.drift.items()}), metrics


def next_drift(drift: Arrays, head: Arrays, mean: Arrays, *, alpha: float, share: float) -> Arrays:
    """Return h - alpha share (mean y - x).

    Parameters
    ----------
    share : float
        Sites that answered, of all sites (|P| / m).

    Examples
    --------
    >>> import numpy as np
    >>> h, x, y = ({"weight": np.array([v])} for v in (0.5, 1.0, 2.0))
    >>> next_drift(h, x, y, alpha=0.1, share=0.5)["weight"]
    array([0.45])
    """
    return {name: h - alpha * share * (mean[name] - head[name]) for name, h in drift.items()}
