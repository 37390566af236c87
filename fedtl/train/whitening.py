"""Whitening by statistics that were paid for: centre, damp the strong directions, scale.

A backbone's features share a large mean and a few directions that hold most of their energy. A
clipped gradient spends its length, and the learning rate its stability, on these. So a feature
vector x of length one becomes

    z = u - P Pᵀ u,   u = unit(x - m),   and then unit(z),

with the mean m and, in the columns of P, eigenvectors of the second moments of u, each times
sqrt(1 - s): what lies along it is damped by s. Directions whose eigenvalue drowns in the noise of
the release are left alone. The bias feature stays as it is.

The spectrum is read under the spiked model: a symmetric matrix of Gaussian noise with deviation σ
off the diagonal times sqrt(2) on it has its eigenvalues in ±R, R = σ sqrt(2 d), and shifts an
eigenvalue λ above R / 2 of what it hides to λ + R² / (4 λ) (Benaych-Georges & Nadakuditi 2011,
arXiv:0910.2120, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN, PULL = "white.mean", "white.pull"
"""Names of m ``[d]`` and P ``[d, k]`` in a head; columns of zeros do nothing."""

_ROWS_AT_ONCE = 4096
_LEAST = 1e-3
"""Smallest energy, as a share of all, that a direction is damped to."""


def is_whitened(head: Mapping[str, object]) -> bool:
    """Say whether a head looks at whitened features."""
    return MEAN in head


def whiten(x: Tensor, mean: Tensor, pull: Tensor) -> Tensor:
    """Return whitened features ``[n, d + 1]`` of features ``[n, d + 1]``, the last one the bias.

    Parameters
    ----------
    mean, pull : Tensor
        m ``[d]`` and P ``[d, k]``; with zeros everywhere ``x`` is returned.
    """
    if not bool(mean.any()) and not bool(pull.any()):
        return x
    out = torch.empty(x.shape, dtype=x.dtype)
    out[:, -1] = x[:, -1]
    used = pull[:, pull.any(dim=0)]
    for begin in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        u = _unit(x[rows, :-1] - mean)
        z = _unit(u - (u @ used) @ used.T) if used.shape[1] else u
        # what a whitening sent to overflow does not bound, clipping would let through as a NaN
        out[rows, :-1] = z.nan_to_num_(0.0, 0.0, 0.0)
    return out


def _unit(x: Tensor) -> Tensor:
    length = x.norm(dim=1, keepdim=True)
    return x / torch.where(length > 0, length, torch.ones_like(length))


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What a noised matrix of second moments says.

    Attributes
    ----------
    pull : NDArray
        P ``[d, k]``, float32.
    directions : int
        Columns that are not zero.
    evenness : float
        Energy of the whitened features over that of their strongest direction: the number of equal
        directions that would be as well conditioned, and the learning rate that suits them.
    """

    pull: NDArray[np.float32]
    directions: int
    evenness: float


def spectrum(
    moments: NDArray[np.float64], *, noise_sd: float, directions: int, damping: float = 0.25
) -> Spectrum:
    """Read the strong directions off the mean second moments of unit vectors.

    Parameters
    ----------
    moments : NDArray
        ``[d, d]``, the mean of u uᵀ plus symmetric noise.
    noise_sd : float
        Standard deviation of the noise on the diagonal; sqrt(1 / 2) of it elsewhere. 0 without.
    directions : int
        Most directions that are damped.
    damping : float
        Strong directions are damped to this share of R: less trusts the noise too much.
    """
    from scipy.sparse.linalg import eigsh

    d = len(moments)
    radius = noise_sd * math.sqrt(2 * d)
    pull = np.zeros((d, directions), np.float32)
    # one more than may be damped: nothing is damped below the strongest that is not
    values, vectors = eigsh(moments, k=min(directions + 1, d - 1), which="LA", v0=np.ones(d))
    hidden = (values + np.sqrt(np.maximum(values**2 - radius**2, 0))) / 2
    beyond = hidden[0] if len(hidden) > directions and values[0] > radius else 0.0
    floor = max(damping * radius, _LEAST, float(beyond))
    chosen = (values > radius) & (hidden > floor)
    kept = hidden[chosen]
    damped = 1 - np.sqrt(floor / kept)  # 1 - s: s² is the share of the energy that stays
    pull[:, : len(kept)] = vectors[:, chosen] * np.sqrt(damped)
    rest = max(1.0 - float(kept.sum()), floor)
    return Spectrum(pull, len(kept), len(kept) + rest / floor)
