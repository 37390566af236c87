"""FedNova: sites that take more steps do not pull harder.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization", NeurIPS 2020, arXiv:2007.07481, eq. 6 with tau_eff = sum p_i ||a_i||_1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.errors import StrategyError
from fedtl.strategies.averaging import Averaging
from fedtl.strategies.local import task_of
from fedtl.train.task import TrainTask
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import STEPS, WEIGHT, records


class FedNova(Averaging):
    """Average the sites' mean gradients, not their moves: for ``train.local_epochs``.

    Where all sites take the same number of steps it is FedAvg.
    """

    needs_updates = True

    def __init__(self) -> None:
        super().__init__()
        self._head: Arrays = {}
        self._task = TrainTask(rounds=1)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head, and how sites step."""
        self._head, self._task = unpack(arrays), task_of(config)
        if self._task.optimizer != "sgd" or self._task.averaging:
            raise StrategyError(
                "FedNova knows the steps of SGD only, and the recipe asks for "
                f"{self._task.optimizer} with averaging = {self._task.averaging}.",
                next_step="Set train.optimizer = 'sgd' and train.averaging = 0.",
            )
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average normalised moves."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        told = [records(reply.content, MetricRecord)[0] for reply in valid]
        weights = np.array([float(m[WEIGHT]) for m in told])  # type: ignore[arg-type]
        steps = [int(m.get(STEPS, self._task.steps)) for m in told]  # type: ignore[arg-type]
        lengths = np.array([move_length(n, self._task.momentum) for n in steps])
        heads = [unpack(records(reply.content, ArrayRecord)[0]) for reply in valid]
        return pack(normalised_average(self._head, heads, weights, lengths)), MetricRecord()


def move_length(steps: int, momentum: float = 0.0) -> float:
    """Return ||a||_1: how many gradients' worth a site moves in so many steps of SGD.

    Paper, section 4: without momentum ``steps``, with momentum rho
    (steps - rho (1 - rho^steps) / (1 - rho)) / (1 - rho).

    Examples
    --------
    >>> move_length(3), move_length(2, 0.5)
    (3.0, 2.5)
    """
    if not momentum:
        return float(steps)
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def normalised_average(
    head: Arrays,
    heads: Sequence[Arrays],
    weights: NDArray[np.float64],
    lengths: NDArray[np.float64],
) -> Arrays:
    """Return x - tau_eff sum p_i d_i with d_i = (x - y_i) / ||a_i||_1.

    Parameters
    ----------
    head : mapping of str to NDArray
        x, what the round began with.
    heads : sequence of mapping of str to NDArray
        y_i, what the sites ended with.
    weights, lengths : NDArray
        ``[S]`` each: examples n_i (p_i = n_i / n), and ||a_i||_1.

    Examples
    --------
    >>> x, heads = {"w": np.zeros(1)}, [{"w": np.array([1.0])}, {"w": np.array([4.0])}]
    >>> normalised_average(x, heads, np.array([1.0, 1.0]), np.array([1.0, 2.0]))["w"]
    array([2.25])
    """
    shares = weights / weights.sum()
    effective = float(shares @ lengths)
    factors = effective * shares / lengths
    return {
        name: np.asarray(
            x + sum(f * (one[name] - x) for f, one in zip(factors, heads, strict=True)), x.dtype
        )
        for name, x in head.items()
    }
