"""The head that sufficient statistics give in closed form.

A ridge head needs nothing but :func:`fedtl.train.additive.statistics` (FED3R: Fani et al., ICML
2024, arXiv:2406.01116).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedtl.train.products import row_starts

Statistics = Mapping[str, NDArray[np.float64]]


def add(parts: list[Statistics]) -> dict[str, NDArray[np.float64]]:
    """Add statistics of disjoint examples."""
    total = {name: np.array(values, np.float64) for name, values in parts[0].items()}
    for part in parts[1:]:  # one after the other: a stack of them would be copied first
        for name, values in total.items():
            values += part[name]
    return total


def unpack(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric ``[d, d]`` matrix of an upper triangle ``[d (d + 1) / 2]``."""
    d = (math.isqrt(8 * len(upper) + 1) - 1) // 2
    full = np.empty((d, d))
    for row, (begin, end) in enumerate(pairwise(row_starts(d))):
        full[row, row:] = full[row:, row] = upper[begin:end]
    return full


def ridge_head(
    stats: Statistics, *, ridge: float, noise_sd: float = 0.0, normalise: bool = False
) -> NDArray[np.float64]:
    """Solve (G + λ I) Wᵀ = B for the head ``[C, d]``.

    Parameters
    ----------
    ridge : float
        λ.
    noise_sd : float
        Standard deviation of the noise on the diagonal of G (0 without privacy). λ is then raised
        to the spectral norm of the noise, ``noise_sd * sqrt(2 d)``, below which G says nothing.
    normalise : bool
        Scale each class's weights to unit length, as FED3R does against label skew.
    """
    gram = unpack(stats["gram"])
    d = len(gram)
    strength = max(ridge, noise_sd * math.sqrt(2 * d))
    if noise_sd:
        values, vectors = np.linalg.eigh(gram)
        inverse = vectors / (values.clip(min=0) + strength) @ vectors.T
        weights = (inverse @ stats["moment"]).T
    else:
        weights = np.linalg.solve(gram + strength * np.eye(d), stats["moment"]).T
    if normalise:
        weights = weights / np.linalg.norm(weights, axis=1, keepdims=True).clip(min=1e-12)
    return np.asarray(weights, np.float64)
