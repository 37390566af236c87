"""What the sites' held-out losses say of a head, for strategies that look after the worst site."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedtl.strategies.averaging import Averaging
from fedtl.strategies.local import path_of
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.evaluation import read_evaluation


class Watching(Averaging):
    """FedAvg that remembers each site's loss on the head that it was sent last.

    The losses are held-out ones, from the evaluation of the round before: they are told anyway, and
    are noised where the plan says so.

    Attributes
    ----------
    losses : dict of str to float
        Site to mean cross-entropy; what nobody told stands at the mean of the others.
    """

    needs_evaluations = True
    needs_updates = True

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[str, float] = {}
        self._head: Arrays = {}
        self._path = 1.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head that goes out, and how far a gradient moves it."""
        self._head, self._path = unpack(arrays), path_of(config, server_round)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Take in every site's loss."""
        told = list(replies)
        for reply in told:
            if reply.has_content():
                self.losses[self.site(reply.metadata.src_node_id)] = read_evaluation(reply).loss
        return super().aggregate_evaluate(server_round, told)

    def loss_of(self, reply: Message) -> float:
        """Return the loss of a reply's site; 1 for all before the first evaluation."""
        mean = sum(self.losses.values()) / len(self.losses) if self.losses else 1.0
        return self.losses.get(self.site(reply.metadata.src_node_id), mean)
