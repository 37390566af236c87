"""The base of fedtl's own strategies: Flower's FedAvg, waiting for nobody."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class Averaging(FedAvg):
    """FedAvg over the sites that a round has: how many take part is the recipe's business.

    Flower's minimum numbers of nodes are 1, so that sampling never waits for more. What a strategy
    remembers of a site it remembers by :meth:`site`: a node's number is drawn anew whenever its
    site comes back.
    """

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self._names: dict[int, str] = {}

    def meet(self, grid: Grid) -> None:
        """Learn what the sites behind a round's nodes are called."""
        self._names.update(getattr(grid, "names", {}))

    def site(self, node: int) -> str:
        """Return the name of a node's site; on a Grid that tells none, the number."""
        return self._names.get(node, str(node))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as FedAvg does."""
        self.meet(grid)
        return super().configure_train(server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as FedAvg does."""
        self.meet(grid)
        return super().configure_evaluate(server_round, arrays, config, grid)
