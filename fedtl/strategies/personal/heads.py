"""The base of strategies with personal heads."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.strategies.around import Around
from fedtl.strategies.averaging import Averaging
from fedtl.train.objective_name import ObjectiveName
from fedtl.wire.evaluation import with_personal

CONFIDENCE = 0.95


class PersonalHeads(Around):
    """Ask for personal heads where a round is evaluated; the strategy inside makes the global one.

    What a site answers is how its personal head does, and how that compares with the global one and
    with one that it trained alone (:class:`fedtl.types.Personal`). No personal head leaves a site.

    Parameters
    ----------
    inner : Strategy or None
        What combines the updates; None: FedAvg.
    personal : ObjectiveName
        How personal heads are made (:mod:`fedtl.train.personal`).
    confidence : float
        In [0, 1). A site uses the head that it trained alone unless held-out examples say with this
        confidence that another is better; at 0 it takes whichever does best on them.
    """

    def __init__(
        self, inner: Strategy | None, personal: ObjectiveName, *, confidence: float = CONFIDENCE
    ) -> None:
        if not 0 <= confidence < 1:
            raise ValueError(f"confidence = {confidence} must be from 0 and below 1")
        super().__init__(Averaging() if inner is None else inner)
        self.personal, self.confidence = personal, float(confidence)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the strategy inside does, and for personal heads."""
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return with_personal(messages, self.personal, confidence=self.confidence)
