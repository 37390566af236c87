"""Norm bounding: updates are shortened to a length, then averaged.

Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", 2019,
arXiv:1911.07963, section 4: Δ = (1/n) Σ Δ_i / max(1, ||Δ_i|| / M). It bounds what a bad site does
to M / n, and does not undo it: no breakdown point. Their noise is left out: a privacy plan adds
noise that is accounted for.
"""

from __future__ import annotations

import numpy as np

from fedtl.strategies.robust.rule import Robust
from fedtl.strategies.updates import Matrix, lengths, shortened


def bounded_mean(updates: Matrix, bound: float = 0.0) -> Matrix:
    """Return the mean of updates shortened to ``bound``; 0 takes the median length.

    Examples
    --------
    >>> bounded_mean(np.array([[3.0, 4.0], [0.0, 1.0]]), 1.0)
    array([0.3, 0.9])
    """
    return np.asarray(shortened(updates, bound or float(np.median(lengths(updates)))).mean(axis=0))


class NormBounding(Robust):
    """The mean of updates of bounded length.

    Parameters
    ----------
    bound : float
        M, in the Euclidean norm of an update; 0: the median length in each round (not in the paper,
        whose M is fixed).
    """

    def __init__(self, *, bound: float = 0.0) -> None:
        if bound < 0:
            raise ValueError(f"bound = {bound} must be from 0")
        super().__init__()
        self.bound = bound

    def combine(self, updates: Matrix) -> Matrix:
        """Return the bounded mean."""
        return bounded_mean(updates, self.bound)
