"""Ditto: a personal head beside the global one, held to it by a spring.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
2021, arXiv:2012.04221, algorithm 1. Any strategy may make the global head, as in the paper.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.heads import CONFIDENCE, PersonalHeads
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.personal import ditto


class Ditto(PersonalHeads):
    """See :class:`fedtl.train.personal.ditto.Ditto` for the step at the sites.

    Parameters
    ----------
    inner : Strategy, optional
        What makes the global head.
    strength : float
        lambda: how firmly the personal head is held to the global one; 0 does not.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    def __init__(
        self,
        inner: Strategy | None = None,
        *,
        strength: float = 0.01,
        confidence: float = CONFIDENCE,
    ) -> None:
        ditto.Ditto(strength=strength)
        super().__init__(inner, ObjectiveName.of("ditto", strength=strength), confidence=confidence)
