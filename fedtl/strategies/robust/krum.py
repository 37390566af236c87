"""Krum and Multi-Krum: the updates that lie closest to most others.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017, arXiv:1703.02757, section 4 (Krum) and 5 (Multi-Krum): of n
updates, f of them bad, each is scored by the sum of its squared distances to the n - f - 2 closest
others. Holds for n >= 2 f + 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedtl.strategies.robust.rule import Robust, check_bad
from fedtl.strategies.updates import Matrix, squared_distances


def krum_scores(distances: Matrix, bad: int) -> Matrix:
    """Return the score of each update; the smaller, the better.

    Parameters
    ----------
    distances : NDArray
        ``[n, n]`` squared distances.
    bad : int
        f. Fewer than f + 3 updates are scored by their closest neighbour.
    """
    return _sums(distances, _closest(len(distances), bad))


def ranked(distances: Matrix, bad: int) -> NDArray[np.intp]:
    """Return the updates from the best score to the worst.

    Two that are each other's closest, where one neighbour is all that counts, have equal scores:
    one more neighbour decides then, not the order of replies.

    Examples
    --------
    >>> ranked(squared_distances(np.array([[0.0], [1.0], [9.0]])), 0)
    array([1, 0, 2])
    """
    closest = _closest(len(distances), bad)
    return np.lexsort((_sums(distances, closest + 1), _sums(distances, closest)))


def _closest(n: int, bad: int) -> int:
    """Return how many neighbours count."""
    return max(n - bad - 2, 1)


def _sums(distances: Matrix, closest: int) -> Matrix:
    """Return the sum of each update's distances to its closest others."""
    n = len(distances)
    if n == 1:
        return np.zeros(1)
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    closest = min(closest, n - 1)
    return np.asarray(np.partition(others, closest - 1, axis=1)[:, :closest].sum(axis=1))


def krum(updates: Matrix, bad: int) -> Matrix:
    """Return the update of the smallest score.

    Examples
    --------
    >>> krum(np.array([[1.0], [1.5], [2.25], [3.0], [99.0]]), 1)
    array([1.5])
    """
    return np.asarray(updates[ranked(squared_distances(updates), bad)[0]])


def multikrum(updates: Matrix, bad: int, keep: int) -> Matrix:
    """Return the mean of the ``keep`` updates of the smallest scores.

    Examples
    --------
    >>> multikrum(np.array([[1.0], [1.5], [2.25], [3.0], [99.0]]), 1, 2)
    array([1.875])
    """
    return np.asarray(updates[ranked(squared_distances(updates), bad)[:keep]].mean(axis=0))


def most_bad(n: int, *, each: int = 2) -> int:
    """Return the most bad ones of n with ``n >= each * bad + 3``.

    Examples
    --------
    >>> most_bad(9), most_bad(2), most_bad(11, each=4)
    (3, 0, 2)
    """
    return max((n - 3) // each, 0)


class Krum(Robust):
    """The one update that lies closest to most others.

    Parameters
    ----------
    bad : int, optional
        f, of the sites in a round; by default as many as the rule bears, (n - 3) / 2.
    num_malicious_nodes : int, optional
        The same, as Flower's Krum calls it.
    """

    def __init__(self, *, bad: int | None = None, num_malicious_nodes: int | None = None) -> None:
        super().__init__()
        self.bad = check_bad(num_malicious_nodes if bad is None else bad)

    @property
    def least(self) -> int:
        """Replies that the rule needs."""
        return 1 if self.bad is None else 2 * self.bad + 3

    def combine(self, updates: Matrix) -> Matrix:
        """Return the closest update."""
        return krum(updates, most_bad(len(updates)) if self.bad is None else self.bad)


class MultiKrum(Krum):
    """The mean of the updates that lie closest to most others.

    Parameters
    ----------
    bad : int, optional
        f, of the sites in a round; by default as many as the rule bears, (n - 3) / 2.
    keep : int
        Updates that are averaged, of those that reply; 0: n - f - 2, as many as every one of which
        is scored by (Damaskinos et al., "AggregaThor", MLSys 2019).
    """

    def __init__(self, *, bad: int | None = None, keep: int = 0) -> None:
        if keep < 0:
            raise ValueError(f"keep = {keep} must be from 0")
        super().__init__(bad=bad)
        self.keep = keep

    def combine(self, updates: Matrix) -> Matrix:
        """Return the mean of the closest updates."""
        n = len(updates)
        bad = most_bad(n) if self.bad is None else self.bad
        return multikrum(updates, bad, self.keep or max(n - bad - 2, 1))
