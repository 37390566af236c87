"""Stop when held-out results no longer improve, and keep the best round's head; for any strategy.

Prechelt, "Early Stopping - But When?", in Neural Networks: Tricks of the Trade, 1998: stop after
``patience`` evaluations without improvement. The head of the best round is the run's result,
whether it was stopped or not.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from fedtl.strategies.around import Around
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.evaluation import read_evaluation


class EarlyStopping(Around):
    """Watch the pooled result of all sites that are evaluated.

    Under a plan with noised metrics this costs nothing more: it looks at what is told anyway.

    Parameters
    ----------
    patience : int
        Evaluations without improvement after which the run stops; 0 never stops, and only keeps the
        best round.
    least : float
        What counts as an improvement.
    by : {"accuracy", "loss"}
        What is watched.
    """

    needs_evaluations = True

    def __init__(
        self, inner: Strategy, *, patience: int = 5, least: float = 0.0, by: str = "accuracy"
    ) -> None:
        super().__init__(inner)
        if patience < 0 or not least >= 0 or by not in ("accuracy", "loss"):
            raise ValueError(
                f"patience = {patience}, least = {least}, by = {by!r}: the first two must be from "
                "0, the last 'accuracy' or 'loss'"
            )
        self.patience, self.least, self.by = patience, least, by
        self.memory = {"best": -np.inf, "round": 0, "waited": 0, "head": {}, "last": {}}

    @property
    def finished(self) -> bool:
        """Whether no further round is worth its cost."""
        return bool(self.patience and self.memory["waited"] >= self.patience)

    @property
    def kept_round(self) -> int:
        """The best round so far; 0 before any was evaluated."""
        return int(self.memory["round"])

    @property
    def kept_head(self) -> Arrays:
        """What that round made of the head."""
        kept: Arrays = self.memory["head"]
        return kept

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Remember what becomes of the head."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None:
            self.memory["last"] = {n: np.array(v, np.float32) for n, v in unpack(arrays).items()}
        return arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Compare with the best round so far."""
        told = list(replies)
        self._compare(server_round, told)
        return super().aggregate_evaluate(server_round, told)

    def _compare(self, round_: int, replies: list[Message]) -> None:
        results = [read_evaluation(reply) for reply in replies if reply.has_content()]
        n = sum(result.n for result in results)
        if n <= 0:
            return
        right, losses = sum(r.right for r in results), sum(r.losses for r in results)
        score = (right if self.by == "accuracy" else -losses) / n
        if score > self.memory["best"] + (self.least if self.memory["round"] else 0.0):
            self.memory |= {"best": float(score), "round": round_, "waited": 0}
            self.memory["head"] = self.memory["last"]
        else:
            self.memory["waited"] += 1
