"""Bulyan: Krum chooses one after the other, then every coordinate is trimmed around its median.

El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium",
ICML 2018, arXiv:1802.07927, section 4: θ = n - 2 f updates are chosen, each by Krum among those
that are left; of each coordinate, the mean of the β = θ - 2 f values closest to the median is
taken. Holds for n >= 4 f + 3. Flower's chooses all θ at once.
"""

from __future__ import annotations

import numpy as np

from fedtl.strategies.robust.krum import most_bad, ranked
from fedtl.strategies.robust.rule import Robust, check_bad
from fedtl.strategies.updates import Matrix, squared_distances


def bulyan(updates: Matrix, bad: int) -> Matrix:
    """Return the trimmed mean of those that Krum chooses.

    Examples
    --------
    >>> bulyan(np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [99.0]]), 1)
    array([4.])
    """
    chosen = updates[_chosen(updates, bad)]
    around = np.abs(chosen - np.median(chosen, axis=0))
    closest = np.argsort(around, axis=0, kind="stable")[: max(len(chosen) - 2 * bad, 1)]
    return np.asarray(np.take_along_axis(chosen, closest, axis=0).mean(axis=0))


def _chosen(updates: Matrix, bad: int) -> list[int]:
    """Return the rows that Krum chooses, one after the other."""
    distances = squared_distances(updates)
    left, chosen = list(range(len(updates))), []
    for _ in range(max(len(updates) - 2 * bad, 1)):
        chosen.append(left.pop(int(ranked(distances[np.ix_(left, left)], bad)[0])))
    return sorted(chosen)


class Bulyan(Robust):
    """Krum's choice, trimmed around the median.

    Parameters
    ----------
    bad : int, optional
        f, of the sites in a round; by default as many as the rule bears, (n - 3) / 4.
    """

    def __init__(self, *, bad: int | None = None) -> None:
        super().__init__()
        self.bad = check_bad(bad)

    @property
    def least(self) -> int:
        """Replies that the rule needs."""
        return 1 if self.bad is None else 4 * self.bad + 3

    def combine(self, updates: Matrix) -> Matrix:
        """Return the trimmed mean of the chosen."""
        return bulyan(updates, most_bad(len(updates), each=4) if self.bad is None else self.bad)
