"""FedBuff: the server moves as soon as some sites have answered, whatever head they began with.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022,
arXiv:2106.06639, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedtl.strategies.averaging import Averaging
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import records


class Stale(Averaging):
    """Remembers which head every site began with; the base of asynchronous strategies.

    Attributes
    ----------
    begun : dict of str to int
        Site to the round whose head it was sent last.
    heads : dict of int to mapping
        Those rounds' heads.
    head : mapping
        The newest one: where nobody is free to be asked, :meth:`configure_train` is not called.
    """

    needs_updates = True

    def __init__(self) -> None:
        super().__init__()
        self.begun: dict[str, int] = {}
        self.heads: dict[int, Arrays] = {}
        self.head: Arrays = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the newest head, and note to whom."""
        self.head = unpack(arrays)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.begun |= {self.site(m.metadata.dst_node_id): server_round for m in messages}
        self.heads[server_round] = self.head
        self.heads = {r: head for r, head in self.heads.items() if r in self.begun.values()}
        return messages

    def moved_to(self, head: Arrays) -> ArrayRecord:
        """Take a head for the newest one, and return it as an answer."""
        self.head = {**self.head, **head}
        return pack(head)

    def moves(self, server_round: int, replies: Sequence[Message]) -> list[tuple[Arrays, int]]:
        """Return what each site moved its head by, and how many rounds old that head is."""
        found: list[tuple[Arrays, int]] = []
        for reply in replies:
            begun = self.begun.get(self.site(reply.metadata.src_node_id), server_round)
            start = self.heads.get(begun, self.head)
            head = unpack(records(reply.content, ArrayRecord)[0])
            found.append(({n: head[n] - start[n] for n in head}, server_round - begun))
        return found


class FedBuff(Stale):
    """Add the mean of the buffered moves, old ones scaled down.

    How many moves the buffer holds is ``pace.buffer`` of the recipe.

    Parameters
    ----------
    server_learning_rate : float
        eta_g.
    """

    def __init__(self, *, server_learning_rate: float = 1.0) -> None:
        if not server_learning_rate > 0:
            raise ValueError(f"server_learning_rate = {server_learning_rate} must be above 0")
        super().__init__()
        self.server_learning_rate = server_learning_rate

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Empty the buffer into the head."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        moves = self.moves(server_round, valid)
        head = buffered(self.head, moves, rate=self.server_learning_rate)
        return self.moved_to(head), MetricRecord()


def buffered(head: Arrays, moves: Sequence[tuple[Arrays, int]], *, rate: float = 1.0) -> Arrays:
    """Return x + rate (1 / K) sum s(tau_i) Delta_i with s(tau) = 1 / sqrt(1 + tau).

    The paper's section 3.2 scales by that s; all sites count alike, as there.

    Examples
    --------
    >>> x, old, new = ({"w": np.array([v])} for v in (1.0, 4.0, 2.0))
    >>> buffered(x, [(old, 3), (new, 0)])["w"]
    array([3.])
    """
    shares = [rate / len(moves) / np.sqrt(1 + age) for _, age in moves]
    return {
        name: np.asarray(
            x + sum(s * move[name] for s, (move, _) in zip(shares, moves, strict=True)), x.dtype
        )
        for name, x in head.items()
        if name in moves[0][0]
    }
