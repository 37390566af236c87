"""Nearest-neighbour mixing: every update becomes the mean of those that lie closest to it.

Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for Optimal
Byzantine ML under Heterogeneity", AISTATS 2023, arXiv:2302.01772, algorithm 2: y_i is the mean of
the n - f updates closest to x_i, itself included. Good sites' updates come closer to each other
however different their data, and any rule behind it fares better. For n > 2 f.
"""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedtl.strategies.robust.mixing import Mixing
from fedtl.strategies.robust.rule import check_bad
from fedtl.strategies.updates import Matrix, squared_distances


def nearest_means(updates: Matrix, bad: int) -> Matrix:
    """Return ``[n, p]`` means of the n - ``bad`` updates closest to each of ``[n, p]``.

    Examples
    --------
    >>> nearest_means(np.array([[0.0], [2.0], [5.0], [99.0]]), 2).ravel()
    array([ 1. ,  1. ,  3.5, 52. ])
    """
    n = len(updates)
    near = np.argsort(squared_distances(updates), axis=1, kind="stable")[:, : n - bad]
    shares = np.zeros((n, n))
    np.put_along_axis(shares, near, 1 / (n - bad), axis=1)
    return np.asarray(shares @ updates)


class NearestNeighbourMixing(Mixing):
    """Mixes each update with those closest to it.

    Parameters
    ----------
    bad : int, optional
        f, of the sites in a round; by default as many as can be, fewer than half.
    """

    def __init__(self, inner: Strategy, *, bad: int | None = None) -> None:
        super().__init__(inner)
        self.bad = check_bad(bad)

    @property
    def least(self) -> int:
        """Replies that the wrapper and the strategy inside need."""
        return max(super().least, 2 * (self.bad or 0) + 1)

    def mixed(self, updates: Matrix, server_round: int) -> Matrix:
        """Return the means; of too few replies they are left to the strategy inside."""
        bad = (len(updates) - 1) // 2 if self.bad is None else self.bad
        return nearest_means(updates, bad) if len(updates) > 2 * bad else updates
