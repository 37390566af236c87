"""q-FedAvg: sites with larger losses count more.

Li, Sanjabi, Beirami, Smith, "Fair Resource Allocation in Federated Learning", ICLR 2020,
arXiv:1905.10497, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fedtl.strategies.fair import Watching
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import records


class QFedAvg(Watching):
    """Minimise the mean of F_k^(q+1) / (q+1) over the sites.

    F_k is site k's held-out loss on the head it was sent, where the paper takes that of its
    training data: Flower's QFedAvg wants a training loss in every reply, and no site tells that.

    Parameters
    ----------
    q : float
        0 averages all sites alike; the larger, the more the worst sites count.
    """

    def __init__(self, *, q: float = 1.0) -> None:
        if not q >= 0:
            raise ValueError(f"q = {q} must be from 0")
        super().__init__()
        self.q = q

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the updates by the sites' losses."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        heads = [unpack(records(reply.content, ArrayRecord)[0]) for reply in valid]
        losses = [self.loss_of(reply) for reply in valid]
        return pack(q_step(self._head, heads, losses, q=self.q, path=self._path)), MetricRecord()


def q_step(
    head: Arrays, heads: Sequence[Arrays], losses: Sequence[float], *, q: float, path: float
) -> Arrays:
    """Return w - sum Delta_k / sum h_k.

    With L = 1 / path and Delta w_k = L (w - w_k): Delta_k = F_k^q Delta w_k and
    h_k = q F_k^(q-1) ||Delta w_k||² + L F_k^q.

    Parameters
    ----------
    path : float
        Sum of the learning rates of the sites' steps.

    Examples
    --------
    >>> w, heads = {"w": np.zeros(1)}, [{"w": np.array([1.0])}, {"w": np.array([3.0])}]
    >>> float(q_step(w, heads, [2.0, 5.0], q=0, path=0.5)["w"][0])
    2.0
    >>> round(float(q_step(w, heads, [1.0, 2.0], q=1, path=1.0)["w"][0]), 4)
    0.5385
    """
    factor = 1 / path
    total = {name: np.zeros_like(values, np.float64) for name, values in head.items()}
    length = 0.0
    for own, loss in zip(heads, losses, strict=True):
        floor = max(loss, 1e-10)  # as the authors' code: 0^(q-1) for q < 1
        moved = {n: factor * (head[n].astype(np.float64) - own[n]) for n in own}
        squares = sum(float(np.square(v).sum()) for v in moved.values())
        length += q * floor ** (q - 1) * squares + factor * floor**q
        for name, values in moved.items():
            total[name] += floor**q * values
    return {n: np.asarray(head[n] - total[n] / length, head[n].dtype) for n in head}
