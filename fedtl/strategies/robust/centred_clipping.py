"""Centred clipping: updates are clipped around the update of the round before.

Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
arXiv:2012.10333, equation (CC): v <- v + (1/n) Σ (x_i - v) min(1, τ / ||x_i - v||), from the v of
the round before, 0 in the first. Their proof lets sites send momentum; a site's steps of a round
stand for it here (``train.momentum`` adds more).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedtl.strategies.robust.rule import Robust
from fedtl.strategies.updates import Matrix, lengths, shortened


def centred_clip(
    updates: Matrix, centre: Matrix, *, radius: float = 0.0, iterations: int = 1
) -> Matrix:
    """Return the centre, moved by the mean of the clipped differences.

    Parameters
    ----------
    centre : NDArray
        ``[p]``, v.
    radius : float
        τ; 0 takes the median distance from the centre, so that nothing has to be tuned (not in the
        paper: while most sites are good, no update moves the centre by more than a good one's
        distance over n).

    Examples
    --------
    >>> centred_clip(np.array([[2.0], [-2.0], [10.0]]), np.array([0.0]), radius=3.0)
    array([1.])
    """
    for _ in range(iterations):
        away = updates - centre
        centre = centre + shortened(away, radius or float(np.median(lengths(away)))).mean(axis=0)
    return centre


class CentredClipping(Robust):
    """Updates clipped around what the round before led to.

    Parameters
    ----------
    radius : float
        τ, in the Euclidean norm of an update; 0: the median distance in each round.
    iterations : int
        Clippings in a round, each around the centre of the one before.
    """

    def __init__(self, *, radius: float = 0.0, iterations: int = 1) -> None:
        if radius < 0 or iterations < 1:
            raise ValueError(f"radius = {radius} must be from 0, iterations = {iterations} from 1")
        super().__init__()
        self.radius, self.iterations = radius, iterations
        self.centre: Matrix = np.zeros(0)

    def combine(self, updates: Matrix) -> Matrix:
        """Clip around the centre, and remember where it goes."""
        centre = self.centre if self.centre.size else np.zeros(updates.shape[1])
        self.centre = centred_clip(updates, centre, radius=self.radius, iterations=self.iterations)
        return self.centre

    def state_dict(self) -> dict[str, Any]:
        """Return the centre."""
        return {"centre": self.centre}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the centre back."""
        self.centre = state["centre"]
