"""SCAFFOLD: control variates against the drift of sites with different data.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
arXiv:1910.06378, algorithm 1 with option II.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedtl.strategies.averaging import Averaging
from fedtl.strategies.local import path_of, sites_in_all
from fedtl.train.objective_name import ObjectiveName
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.objective import with_objective


class Scaffold(Averaging):
    """FedAvg whose sites correct every step by c - c_i.

    Sites keep c_i (:class:`fedtl.train.objectives.scaffold.ControlVariates`). The mean of their
    changes, -c + (x - mean y_i) / (K eta), needs no more than the mean of the heads y_i, so answers
    are as long as FedAvg's and may be hidden in a sum. Means are weighted as FedAvg's are.

    Parameters
    ----------
    server_learning_rate : float
        eta_g: x <- x + eta_g (mean y_i - x).
    """

    def __init__(self, *, server_learning_rate: float = 1.0) -> None:
        if not server_learning_rate > 0:
            raise ValueError(f"server_learning_rate = {server_learning_rate} must be above 0")
        super().__init__()
        self.server_learning_rate = server_learning_rate
        self.control: Arrays = {}
        self._head: Arrays = {}
        self._path, self._sites = 1.0, 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send c beside the head."""
        self._head, self._path = unpack(arrays), path_of(config, server_round)
        self._sites = sites_in_all(grid)
        self.control = self.control or {name: v * 0 for name, v in self._head.items()}
        messages = super().configure_train(server_round, arrays, config, grid)
        beside = {f"control/{name}": values for name, values in self.control.items()}
        return with_objective(messages, ObjectiveName.of("scaffold"), beside)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the heads, and move c by the sites' mean change."""
        replies = list(replies)
        average, metrics = super().aggregate_train(server_round, replies)
        if average is None:
            return None, metrics
        mean, share = unpack(average), sum(r.has_content() for r in replies) / self._sites
        self.control = next_control(self.control, self._head, mean, path=self._path, share=share)
        return pack(step(self._head, mean, self.server_learning_rate)), metrics


def next_control(
    control: Arrays, head: Arrays, mean: Arrays, *, path: float, share: float
) -> Arrays:
    """Return c + share (-c + (x - mean y) / path): what the mean of all c_i becomes.

    Parameters
    ----------
    path : float
        Sum of the learning rates of the round's steps (K eta).
    share : float
        Sites that answered, of all sites (|S| / N).

    Examples
    --------
    >>> import numpy as np
    >>> c, x, y = ({"weight": np.array([v])} for v in (1.0, 3.0, 2.0))
    >>> next_control(c, x, y, path=0.5, share=0.5)["weight"]
    array([1.5])
    """
    return {name: c + share * ((head[name] - mean[name]) / path - c) for name, c in control.items()}


def step(head: Arrays, mean: Arrays, rate: float) -> Arrays:
    """Return x + rate (mean y - x)."""
    return {name: x + rate * (mean[name] - x) for name, x in head.items()}
