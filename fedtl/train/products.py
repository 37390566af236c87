"""Sums of outer products of rows, at half the work of a full product: they are symmetric."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtl.train.room import room
from fedtl.train.threads import spread

_SIDE = 160
"""Rows of the triangle that are made at once: small beside the width, large enough for BLAS."""


class Gram:
    """The upper triangle of Σ w x xᵀ, in float64; one at a time in a thread.

    It is made in bands of rows, each on a thread of its own, so that the number of threads changes
    no bit of it.

    Examples
    --------
    >>> gram = Gram(2)
    >>> gram.add(np.array([[1.0, 2.0], [0.0, 3.0]]), np.array([1.0, 1.0]))
    >>> gram.upper()
    array([ 1.,  2., 13.])
    """

    def __init__(self, width: int, *, threads: int = 1) -> None:
        self._starts, self._threads = row_starts(width), threads
        self._upper: NDArray[np.float64] | None = None

    def add(self, rows: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Add the products of ``[n, d]`` rows by ``[n]`` weights from 0."""
        if (weights != 1).any():
            rows = rows * np.sqrt(weights)[:, None]
        d = rows.shape[1]
        before, product = self._upper, room("product", (d, d), np.float64)
        upper = self._upper = np.empty(self._starts[-1]) if before is None else before

        def band(begin: int) -> None:
            end = begin + _SIDE
            left, right = rows[:, begin:end], rows[:, end:]
            made = product[begin:end]
            np.matmul(left.T, left, out=made[:, begin:end])  # NumPy sees that it is symmetric
            np.matmul(left.T, right, out=made[:, end:])
            for at, row in enumerate(made, begin):
                target = upper[self._starts[at] : self._starts[at + 1]]
                if before is None:
                    target[:] = row[at:]
                else:
                    target += row[at:]

        spread(band, range(0, d, _SIDE), threads=self._threads, size=rows.size * d)

    def upper(self) -> NDArray[np.float64]:
        """Return ``[d (d + 1) / 2]``, by rows; adding more changes it."""
        return np.zeros(self._starts[-1]) if self._upper is None else self._upper


def in_double(rows: Tensor) -> Tensor:
    """Return ``[n, d]`` rows in float64, until they are asked for again in this thread."""
    return torch.from_numpy(room("rows", tuple(rows.shape), np.float64)).copy_(rows)


def row_starts(width: int) -> list[int]:
    """Return where the rows of an upper triangle begin, one after the other, and where they end."""
    return [row * width - row * (row - 1) // 2 for row in range(width + 1)]
