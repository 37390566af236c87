"""APFL's personal heads."""

from __future__ import annotations

import numpy as np

from fedtl.train.personal.personal import Made, PersonalHead, Turn
from fedtl.types import Arrays

_ALPHA = "alpha"


class APFL(PersonalHead):
    """A mixture of the global head and one of the site's own, with a weight that is learned.

    Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning", 2020, arXiv:2003.13461,
    algorithm 1: the personal head is m = alpha v + (1 - alpha) w; v moves along alpha ∇F(m), and
    once a turn alpha along <v - w, ∇F(m)> (equation 11). Here w is the global head of the turn:
    with w fixed, steps of v are steps of m at the rate alpha² eta.

    Parameters
    ----------
    alpha : float
        Weight of the own head at first.
    rate : float
        Learning rate of alpha; 0 leaves it.
    """

    def __init__(self, *, alpha: float = 0.5, rate: float = 0.1) -> None:
        if not 0 <= alpha <= 1 or not rate >= 0:
            raise ValueError(f"alpha = {alpha} must be in [0, 1], and rate = {rate} from 0")
        self.alpha, self.rate = alpha, rate

    def make(self, turn: Turn) -> Made:
        """Move alpha, then v."""
        kept = dict(turn.kept)
        alpha = float(kept.pop(_ALPHA, np.array(self.alpha)))
        own = kept or turn.head
        mixture = mixed(own, turn.head, alpha)
        if self.rate and kept:
            alpha = moved(alpha, own, turn.head, self._gradient(turn, mixture), self.rate)
            mixture = mixed(own, turn.head, alpha)
        if alpha:
            moving = turn.fit(mixture, rate=alpha**2 * turn.rate)
            own = {n: (m - (1 - alpha) * turn.head[n]) / alpha for n, m in moving.items()}
            mixture = moving
        return Made([mixture], {**own, _ALPHA: np.array(alpha, np.float32)})

    @staticmethod
    def _gradient(turn: Turn, head: Arrays) -> Arrays:
        after = turn.fit(head, steps=1)
        return {name: (values - after[name]) / turn.rate for name, values in head.items()}


def mixed(own: Arrays, other: Arrays, alpha: float) -> Arrays:
    """Return alpha own + (1 - alpha) other."""
    return {
        name: (alpha * values + (1 - alpha) * other[name]).astype(np.float32)
        for name, values in own.items()
    }


def moved(alpha: float, own: Arrays, other: Arrays, gradient: Arrays, rate: float) -> float:
    """Return alpha after a step against <own - other, gradient>, in [0, 1].

    Examples
    --------
    >>> one, none = {"weight": np.ones(2)}, {"weight": np.zeros(2)}
    >>> moved(0.5, one, none, {"weight": np.array([1.0, -2.0])}, 0.1)
    0.6
    """
    slope = sum(float(((own[n] - other[n]) * g).sum()) for n, g in gradient.items())
    return min(max(alpha - rate * slope, 0.0), 1.0)
