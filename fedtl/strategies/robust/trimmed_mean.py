"""The mean of every coordinate without its largest and smallest values.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, arXiv:1803.01498, definition 2. Holds while at most a share β of the
sites is bad.
"""

from __future__ import annotations

import numpy as np

from fedtl.strategies.robust.rule import Robust
from fedtl.strategies.updates import Matrix


def trimmed_mean(updates: Matrix, share: float) -> Matrix:
    """Return the mean over the first axis without ``floor(share * n)`` values at each end.

    Of n sites at most ``floor(share * n)`` are bad, if at most a share of them is.

    Examples
    --------
    >>> trimmed_mean(np.array([[-50.0], [1.0], [2.0], [3.0], [70.0]]), 0.2)
    array([2.])
    """
    n = len(updates)
    cut = int(share * n + 1e-9)  # 0.29 * 100 is 28.999999999999996
    ordered = np.sort(updates, axis=0)
    return np.asarray(ordered[cut : n - cut].mean(axis=0))


class TrimmedMean(Robust):
    """The trimmed mean of every coordinate of the updates.

    Parameters
    ----------
    share : float
        β, of the sites, trimmed at each end: from 0 and below 0.5.
    """

    def __init__(self, *, share: float = 0.2) -> None:
        if not 0 <= share < 0.5:
            raise ValueError(f"share = {share} must be from 0 and below 0.5")
        super().__init__()
        self.share = share

    def combine(self, updates: Matrix) -> Matrix:
        """Return the trimmed mean."""
        return trimmed_mean(updates, self.share)
