"""Local fine-tuning: every site goes on from the global head by itself.

Yu, Bagdasaryan, Shmatikov, "Salvaging Federated Learning by Local Adaptation", 2020,
arXiv:2002.04758, section 3.1.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.heads import CONFIDENCE, PersonalHeads
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.personal import fine_tuned


class FineTuned(PersonalHeads):
    """See :class:`fedtl.train.personal.fine_tuned.FineTuned` for the step at the sites.

    Parameters
    ----------
    inner : Strategy, optional
        What makes the global head.
    steps : int
        Of gradient descent, from the global head.
    rate : float
        Factor on the federation's learning rate.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    def __init__(
        self,
        inner: Strategy | None = None,
        *,
        steps: int = 20,
        rate: float = 1.0,
        confidence: float = CONFIDENCE,
    ) -> None:
        fine_tuned.FineTuned(steps=steps, rate=rate)
        super().__init__(
            inner, ObjectiveName.of("fine_tuned", steps=steps, rate=rate), confidence=confidence
        )
