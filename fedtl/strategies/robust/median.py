"""The median of every coordinate.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, arXiv:1803.01498, definition 1. Breaks down at half the sites.
"""

from __future__ import annotations

import numpy as np

from fedtl.strategies.robust.rule import Robust
from fedtl.strategies.updates import Matrix


def coordinate_median(updates: Matrix) -> Matrix:
    """Return the median over the first axis; of an even number the mean of the middle two.

    Examples
    --------
    >>> coordinate_median(np.array([[1.0, 9.0], [2.0, 0.0], [900.0, 1.0]]))
    array([2., 1.])
    """
    return np.asarray(np.median(updates, axis=0))


class Median(Robust):
    """The median of every coordinate of the updates."""

    def combine(self, updates: Matrix) -> Matrix:
        """Return the median."""
        return coordinate_median(updates)
