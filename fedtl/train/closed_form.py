"""Heads in closed form from the sums of a release of statistics: class means, and covariances.

All but one need the sums over all sites only, so that the head is that of the pooled data, for any
split and any order. Each takes what :mod:`fedtl.train.classes` reads, and answers ``[C, d + 1]``
weights, the last column those of the bias feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedtl.train.classes import ClassSums, Matrix, Noise, read_classes
from fedtl.train.ridge import Statistics, add

_BELOW = 1.0
"""How far a class that nobody has stays below the mean of the other scores."""
_LEAST = 1e-12
"""Least that is divided by: features without any spread have none."""


def centroid_head(read: ClassSums) -> Matrix:
    """Return FedNCM's head: w_c = μ_c / |μ_c| (Legate et al. 2023, arXiv:2306.03937)."""
    return assembled(_unit(read.means), np.zeros(len(read.counts)), read.there, read.bias)


def discriminant_head(
    read: ClassSums, *, shrinkage: float, floor: float = 0.0, diagonal: bool = False
) -> Matrix:
    """Return linear discriminant analysis: classes are Gaussian and share one covariance Σ.

    w_c = Σ⁻¹ μ_c and b_c = -½ μ_cᵀ Σ⁻¹ μ_c + ln π_c, less the mean row of all classes, which
    changes no probability. Σ is shrunk to (1 - α) Σ + α tr(Σ) / d I.

    Parameters
    ----------
    shrinkage : float
        α, in [0, 1].
    floor : float
        Least eigenvalue that is believed: the spectral norm of the noise on Σ.
    diagonal : bool
        Naive Bayes: only the diagonal of Σ.
    """
    n = max(float(read.counts.sum()), 1.0)
    shared = read.within() / n
    level = shrinkage * max(float(np.trace(shared)) / len(shared), 0.0) + floor
    if diagonal:
        variances = (1 - shrinkage) * np.diag(shared).clip(min=0) + level
        rows = read.means / variances.clip(min=_LEAST)
    else:
        rows = divided(read.means, (1 - shrinkage) * shared, level, exact=not floor)
    prior = np.log(np.maximum(read.counts, 0.5) / n)
    offsets = prior - 0.5 * (rows * read.means).sum(axis=1)
    rows -= rows[read.there].mean(axis=0) if read.there.any() else 0.0
    offsets -= offsets[read.there].mean() if read.there.any() else 0.0
    return assembled(rows, offsets, read.there, read.bias)


def means_only_head(parts: Sequence[Statistics], *, noise: Noise, shrinkage: float) -> Matrix:
    """Return FedCOF's head, with covariances that are estimated from the sites' class means.

    Σ̂_c = 1 / (K_c - 1) Σ_k n_kc (μ_kc - μ_c)(μ_kc - μ_c)ᵀ over the K_c sites with class c is
    unbiased where sites draw a class's examples alike (Goswami et al. 2025, arXiv:2412.14326). Then
    G = Σ_c (n_c - 1) Σ̂_c, shrunk to G + α tr(G) / d I, and w_c = G⁻¹ μ_c, scaled to length one.
    Noise on the means spreads them evenly, which shrinks more. Gram matrices are not used.

    Parameters
    ----------
    parts : sequence of Statistics
        One per site: this is not a function of their sum.
    noise : Noise
        On one site's statistics.
    shrinkage : float
        α.
    """
    read = read_classes(add(list(parts)), noise.over(len(parts)))
    moments = np.stack([part["moment"].T for part in parts])  # [K, C, d + 1]
    counts = moments[:, :, -1] / read.bias
    sure = (counts > max(0.5, 2 * noise.moment / read.bias)) & read.there
    gram = _between_sites(moments[:, :, :-1], counts, sure, read)
    level = shrinkage * float(np.trace(gram)) / len(gram)
    # means that do not differ have no covariance, and the head is FedNCM's
    rows = divided(read.means, gram, level, exact=True) if level > _LEAST else read.means
    return assembled(_unit(rows), np.zeros(len(rows)), read.there, read.bias)


def _between_sites(
    sums: Matrix, counts: Matrix, sure: NDArray[np.bool_], read: ClassSums
) -> Matrix:
    """Return Σ_c (n_c - 1) Σ̂_c ``[d, d]`` of the sites' class sums ``[K, C, d]``."""
    holders = sure.sum(axis=0)
    factor = np.maximum(read.counts - 1, 0) / np.maximum(holders - 1, 1)
    sites, classes = np.nonzero(sure & (holders > 1))
    n = counts[sites, classes]
    apart = sums[sites, classes] / n[:, None] - read.means[classes]
    gram: Matrix = (apart.T * (factor[classes] * n)) @ apart
    return gram


def assembled(rows: Matrix, offsets: Matrix, there: NDArray[np.bool_], bias: float) -> Matrix:
    """Put weights ``[C, d]`` and offsets ``[C]`` into a head; classes not ``there`` never win.

    Their score is the mean of the others' less :data:`_BELOW`, and a mean is not the largest.
    """
    head = np.column_stack([rows, offsets / bias])
    if not there.any():
        return np.zeros_like(head)
    head[~there] = head[there].mean(axis=0)
    head[~there, -1] -= _BELOW / bias
    return head


def preconditioner(
    gram: Matrix, examples: float, *, damping: float, noise: Noise | None = None
) -> Matrix:
    """Return (H + λ I)⁻¹, with the mean second moments H of the features made positive.

    The Hessian of softmax cross-entropy is at most ½ I ⊗ H (Böhning 1992), so that the step
    W ← W - 2 g (H + λ I)⁻¹ never raises the loss; one noised H serves all steps and classes (DP-FC,
    Mehta et al. 2023, arXiv:2211.13403).

    Parameters
    ----------
    gram : NDArray
        ``[d, d]``, Σ x xᵀ, bias included.
    examples : float
        What gradients are divided by.
    damping : float
        λ is this, or the noise's spectral norm where that is larger.
    """
    radius = noise.radius(len(gram)) / examples if noise else 0.0
    level = max(damping, radius)
    return divided(np.eye(len(gram)), gram / examples, level, exact=not radius)


def divided(rows: Matrix, matrix: Matrix, level: float, *, exact: bool) -> Matrix:
    """Return rows times (A₊ + level I)⁻¹, with A₊ the positive part of a symmetric matrix.

    Parameters
    ----------
    exact : bool
        The matrix is a scatter without noise, positive by itself: solving takes a tenth of the time
        of its spectrum.
    """
    d = len(matrix)
    if exact and level > _LEAST:
        return np.asarray(np.linalg.solve(matrix + level * np.eye(d), rows.T).T)
    values, vectors = np.linalg.eigh(matrix)
    inverse = 1 / (values.clip(min=0) + level).clip(min=_LEAST)
    return np.asarray(rows @ vectors * inverse @ vectors.T)


def _unit(rows: Matrix) -> Matrix:
    """Scale rows to length one; a row of zeros stays."""
    out: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=_LEAST)
    return out
