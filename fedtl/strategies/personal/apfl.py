"""APFL: a mixture of the global head and one of the site's own, with a weight that is learned.

Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning", 2020, arXiv:2003.13461.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.heads import CONFIDENCE, PersonalHeads
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.personal import apfl


class APFL(PersonalHeads):
    """See :class:`fedtl.train.personal.apfl.APFL` for the step at the sites.

    Parameters
    ----------
    inner : Strategy, optional
        What makes the global head.
    alpha : float
        Weight of the own head at first.
    rate : float
        Learning rate of alpha; 0 leaves it.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    def __init__(
        self,
        inner: Strategy | None = None,
        *,
        alpha: float = 0.5,
        rate: float = 0.1,
        confidence: float = CONFIDENCE,
    ) -> None:
        apfl.APFL(alpha=alpha, rate=rate)
        super().__init__(
            inner, ObjectiveName.of("apfl", alpha=alpha, rate=rate), confidence=confidence
        )
