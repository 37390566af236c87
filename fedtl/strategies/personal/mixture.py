"""Mixing by validation: held-out examples say how much of the global head a site wants.

Mansour, Mohri, Ro, Suresh, "Three Approaches for Personalization with Applications to Federated
Learning", 2020, arXiv:2002.10619, section 5.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedtl.strategies.personal.heads import CONFIDENCE, PersonalHeads
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.personal import mixture


class Mixture(PersonalHeads):
    """See :class:`fedtl.train.personal.mixture.Mixture` for the step at the sites.

    Parameters
    ----------
    inner : Strategy, optional
        What makes the global head, a linear one.
    parts : int
        The weight of the head that a site trained alone is one of 0, 1 / parts, ..., 1.
    confidence : float
        See :class:`fedtl.strategies.personal.heads.PersonalHeads`.
    """

    head_kind = "linear"

    def __init__(
        self, inner: Strategy | None = None, *, parts: int = 10, confidence: float = CONFIDENCE
    ) -> None:
        mixture.Mixture(parts=parts)
        super().__init__(inner, ObjectiveName.of("mixture", parts=parts), confidence=confidence)
