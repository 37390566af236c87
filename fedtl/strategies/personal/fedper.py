"""FedPer: the sites share an adapter over the frozen features, and each has its own last layer.

Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers", 2019,
arXiv:1912.00818, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.heads import CONFIDENCE, PersonalHeads
from fedtl.train.objective_name import ObjectiveName
from fedtl.wire.objective import with_objective


class FedPer(PersonalHeads):
    """Average the hidden layer of MLP heads; the last layer never leaves a site.

    Both layers are trained by the steps that a plan covers, so a shared layer that was trained
    through the own ones is private, and so are results of the own ones that are told with noise.
    A learning rate of 1 is steady (``train.lr``); the default of MLP heads, 3, may be too much.

    Parameters
    ----------
    inner : Strategy, optional
        What averages.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    head_kind = "mlp"

    def __init__(self, inner: Strategy | None = None, *, confidence: float = CONFIDENCE) -> None:
        super().__init__(inner, ObjectiveName.of("own_layer"), confidence=confidence)
        self.objective = ObjectiveName.of("own_layer")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for a training that keeps the last layer."""
        messages = super().configure_train(server_round, arrays, config, grid)
        return with_objective(messages, self.objective)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for the result of the shared layer below each site's own last one."""
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return with_objective(messages, self.objective)
