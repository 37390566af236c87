"""Sums of outer products of rows, at half the work of a full product: they are symmetric."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_room = threading.local()


class Gram:
    """The upper triangle of Σ w x xᵀ, in float64; one at a time in a thread.

    Examples
    --------
    >>> gram = Gram(2)
    >>> gram.add(np.array([[1.0, 2.0], [0.0, 3.0]]), np.array([1.0, 1.0]))
    >>> gram.upper()
    array([ 1.,  2., 13.])
    """

    def __init__(self, width: int) -> None:
        # the system zeroes the pages of a new array, which takes longer than a site's product
        if getattr(_room, "total", np.zeros(0)).shape != (width, width):
            _room.total = np.empty((width, width), order="F")
        self._total: NDArray[np.float64] = _room.total
        self._total.fill(0.0)

    def add(self, rows: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Add the products of ``[n, d]`` rows by ``[n]`` weights from 0."""
        from scipy.linalg.blas import dsyrk

        if not len(rows):
            return
        if (weights != 1).any():
            rows = rows * np.sqrt(weights)[:, None]
        # rows.T lies in memory as Fortran wants it, so nothing is copied
        dsyrk(1.0, rows.T, beta=1.0, c=self._total, overwrite_c=1, lower=1)

    def upper(self) -> NDArray[np.float64]:
        """Return ``[d (d + 1) / 2]``, by rows; these are the columns of the lower triangle."""
        return self._total.ravel("F").take(_places(len(self._total)))


@lru_cache(maxsize=2)
def _places(width: int) -> NDArray[np.intp]:
    """Return where the columns of a lower triangle lie in a matrix that is stored by columns."""
    columns, rows = np.triu_indices(width)
    return np.asarray(rows + columns * width)
