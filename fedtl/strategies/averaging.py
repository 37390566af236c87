"""The base of fedtl's own strategies: Flower's FedAvg, waiting for nobody."""

from __future__ import annotations

from flwr.serverapp.strategy import FedAvg


class Averaging(FedAvg):
    """FedAvg over the sites that a round has: how many take part is the recipe's business.

    Flower's minimum numbers of nodes are 1, so that sampling never waits for more.
    """

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
