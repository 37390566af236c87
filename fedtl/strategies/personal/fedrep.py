"""FedRep: the last layer is fitted first, at the site; then the shared one below it.

Collins, Hassani, Mokhtari, Shakkottai, "Exploiting Shared Representations for Personalized
Federated Learning", ICML 2021, arXiv:2102.07078, algorithm 1.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.fedper import FedPer
from fedtl.strategies.personal.heads import CONFIDENCE
from fedtl.train.objective_name import ObjectiveName


class FedRep(FedPer):
    """FedPer whose layers move one after the other in a round.

    Parameters
    ----------
    inner : Strategy, optional
        What averages.
    head_steps : int
        Of a round's steps (``train.local_steps``), those of the last layer, at most all but one;
        the others are the shared layer's. The paper takes most of them for the last layer.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    def __init__(
        self,
        inner: Strategy | None = None,
        *,
        head_steps: int = 1,
        confidence: float = CONFIDENCE,
    ) -> None:
        if head_steps < 1:
            raise ValueError(f"head_steps = {head_steps} must be from 1")
        super().__init__(inner, confidence=confidence)
        self.objective = ObjectiveName.of("own_layer", head_steps=head_steps)
