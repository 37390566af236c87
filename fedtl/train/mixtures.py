"""Synthetic features of Gaussian classes or mixtures, and a softmax head that is trained on them.

A mixture has K Gaussians for each of C classes: weights ``[C, K]``, which add up to 1 for each
class, means and variances (the diagonals of covariances) ``[C, K, d]``, features without the bias.
"""

from __future__ import annotations

import numpy as np

from fedtl.train.classes import ClassSums, Matrix, shrunk_sums
from fedtl.train.closed_form import preconditioner
from fedtl.train.objectives.mixed import MEANS, VARIANCES, WEIGHTS, stretch
from fedtl.types import Arrays

_STEPS = 100
_APART = 2.0
"""How far components start from the mean of their class, in standard deviations along the way."""
_RIDGE = 1e-6
"""What is added to variances, as by scikit-learn's ``reg_covar``."""
_SURE = 3.0
"""A noised count below so many of its deviations is nobody's."""
_FLAT = 0.2
"""Least noised variance, of the mean over the features; less where there is less noise on it. One
near 0 by noise would decide alone which component an example is of."""
_NOBODY = 1e-9
"""A count below it is rounding."""


def sample_features(
    read: ClassSums, size: int, rng: np.random.Generator, *, floor: float = 0.0
) -> tuple[Matrix, np.ndarray]:
    """Draw features around the class means, with the shared covariance, of the classes' length.

    Parameters
    ----------
    size : int
        Draws of each class that somebody has.
    floor : float
        Eigenvalues of the covariance below it are noise and taken for 0.

    Returns
    -------
    tuple
        Features ``[n, d + 1]``, bias included, and classes ``[n]``.
    """
    values, vectors = np.linalg.eigh(read.within() / max(float(read.counts.sum()), 1.0))
    believed = np.where(values > floor, values, 0.0).clip(min=0)
    # the symmetric root: an eigenvector's sign would depend on the order of the sites
    root = vectors * np.sqrt(believed) @ vectors.T
    classes = np.repeat(np.flatnonzero(read.there), size)
    drawn = read.means[classes] + rng.normal(size=(len(classes), len(root))) @ root
    length = np.sqrt(max(float(np.trace(read.gram)) / max(float(read.counts.sum()), 1.0), 0.0))
    return _of_length(drawn, float(length), read.bias), classes


def _of_length(drawn: Matrix, length: float, bias: float) -> Matrix:
    """Scale rows to a length and put the bias behind them."""
    norms = np.linalg.norm(drawn, axis=1, keepdims=True).clip(min=1e-12)
    return np.column_stack([drawn * (length / norms), np.full(len(drawn), bias)])


def first_mixture(classes: int, components: int, d: int) -> dict[str, Matrix]:
    """Return what the first sums are asked for with: one Gaussian a class has every example."""
    shape = (classes, components, d)
    weights = np.zeros(shape[:2])
    weights[:, 0] = 1.0
    return {WEIGHTS: weights, MEANS: np.zeros(shape), VARIANCES: np.ones(shape)}


def split_mixture(mixture: Arrays, rng: np.random.Generator) -> dict[str, Matrix]:
    """Return K equal Gaussians around the first one of each class, in random directions.

    The directions are drawn in units of the deviations, sum to 0 and have equal lengths, so that no
    component is nearer to the class than another.
    """
    components = mixture[WEIGHTS].shape[1]
    drawn = rng.normal(size=mixture[MEANS].shape)
    drawn -= drawn.mean(axis=1, keepdims=True)
    drawn *= _APART / np.linalg.norm(drawn, axis=2, keepdims=True).clip(min=1e-12)
    means, variances = mixture[MEANS][:, :1], mixture[VARIANCES][:, :1]
    return {
        WEIGHTS: np.full_like(mixture[WEIGHTS], 1 / components),
        MEANS: means + drawn * np.sqrt(variances),
        VARIANCES: np.repeat(variances, components, axis=1),
    }


def next_mixture(parts: Matrix, before: Arrays) -> tuple[dict[str, Matrix], Matrix]:
    """Take one step of expectation maximisation; return the mixture and the counts ``[C, K]``.

    With n = Σ r: π = n / Σ n over the class, μ = Σ r x / n, v = Σ r x² / n - μ² (Dempster, Laird,
    Rubin 1977; Bishop 2006, eq. 9.24 to 9.26, with diagonal covariances). The likelihood never
    falls, but for :data:`_RIDGE`. A component that has nobody stays as it was.

    Parameters
    ----------
    parts : NDArray
        ``[C, K, 1 + 2 d]``: :class:`fedtl.train.objectives.mixed.MixtureMoments`, added up.
    before : mapping of str to NDArray
        The mixture that the responsibilities r are of.
    """
    counts, sums, squares = _moments(parts)
    there, whole = counts > _NOBODY, counts.sum(axis=1, keepdims=True)
    n = np.where(there, counts, 1.0)[..., None]
    variances = (squares / n - (sums / n) ** 2).clip(min=0) + _RIDGE
    found = {
        WEIGHTS: np.where(whole > _NOBODY, counts / whole.clip(min=_NOBODY), before[WEIGHTS]),
        MEANS: np.where(there[..., None], sums / n, before[MEANS]),
        VARIANCES: np.where(there[..., None], variances, before[VARIANCES]),
    }
    return found, np.where(there, counts, 0.0)


def noised_mixture(
    parts: Matrix, whole: Matrix, before: Arrays, *, deviation: float, of_whole: float
) -> tuple[dict[str, Matrix], Matrix]:
    """Do the same with noised sums: believe of a component what stands out of the noise.

    Whole classes have less noise than their components, and the less the oftener they were told.
    Means of classes are shrunk towards the mean of all, means and variances of components towards
    their class's, by as much as is left of their noise says (James & Stein 1961); where that is
    all, one Gaussian a class is left. The squared noise on a mean is taken out of its square.

    Parameters
    ----------
    whole : NDArray
        ``[C, 1 + 2 d]``: sums over a class's components, the mean of those told so far.
    deviation, of_whole : float
        Of the noise on every entry of the parts and of the whole, above 0.
    """
    d = before[MEANS].shape[2]
    alive = before[WEIGHTS] > 0
    n, mean, variance = _classes(whole, of_whole)
    told = np.where(alive, parts[..., 0], 0.0).clip(min=0)
    all_ = told.sum(axis=1, keepdims=True)
    weights = np.where(all_ > 0, told / np.where(all_ > 0, all_, 1.0), before[WEIGHTS])
    counts = n[:, None] * weights
    sure = (told > _SURE * deviation) & (counts > 0)
    each = np.where(sure, counts, 1.0)[..., None]
    _, sums, squares = _moments(parts)
    variances = squares / each - (sums / each) ** 2 + (deviation / each) ** 2
    noise = np.where(sure[..., None], deviation / each, np.inf)
    level, noise_of_squares = variance.mean(axis=1).clip(min=0), noise / stretch(d)
    least = np.minimum(_FLAT * level[:, None, None], noise_of_squares) + _RIDGE
    spread = variance[:, None] + _kept(variances - variance[:, None], noise_of_squares)
    found = {
        WEIGHTS: weights,
        MEANS: mean[:, None] + _kept(sums / each - mean[:, None], noise),
        VARIANCES: np.maximum(spread, least),
    }
    return found, counts


def _classes(whole: Matrix, deviation: float) -> tuple[Matrix, Matrix, Matrix]:
    """Return counts ``[C]``, means and variances ``[C, d]`` of classes from noised sums.

    A count that is no more than noise is 0; if all could be, all are their mean.
    """
    told, sums, squares = _moments(whole)
    average = max(float(told.mean()), 1.0)
    if average < _SURE * deviation:
        told = np.full_like(told, average)
    there = told > min(_SURE * deviation, 0.5 * average)
    n = np.where(there, told, 1.0)[:, None]
    variances = squares / n - (sums / n) ** 2 + (deviation / n) ** 2
    level = variances.mean(axis=1, keepdims=True).clip(min=0)
    noise = deviation / (stretch(sums.shape[1]) * n)
    means = np.zeros_like(sums)
    means[there] = shrunk_sums(sums[there], told[there], deviation) / n[there]
    return np.where(there, told, 0.0), means, level + _kept(variances - level, noise)


def _moments(parts: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Return Σ r ``[...]``, Σ r x and Σ r x² ``[..., d]``."""
    d = parts.shape[-1] // 2
    return parts[..., 0], parts[..., 1 : 1 + d], parts[..., 1 + d :] / stretch(d)


def _kept(apart: Matrix, noise: Matrix) -> Matrix:
    """Shrink differences ``[..., d]`` by their noise, of deviations ``[..., 1]``."""
    lost = noise**2 * apart.shape[-1] / (apart**2).sum(axis=-1, keepdims=True).clip(min=1e-200)
    return np.asarray((1 - lost).clip(min=0) * apart)


def sample_mixture(
    mixture: Arrays, counts: Matrix, size: int, rng: np.random.Generator, *, bias: float
) -> tuple[Matrix, np.ndarray]:
    """Draw ``size`` features of each class that somebody has, of the mixture's mean length.

    Parameters
    ----------
    counts : NDArray
        ``[C, K]``, examples of each component.

    Returns
    -------
    tuple
        Features ``[n, d + 1]``, bias included, and classes ``[n]``.
    """
    drawn, classes = [], np.flatnonzero(counts.sum(axis=1) > 0)
    for c in classes:
        noise = rng.normal(size=(size, mixture[MEANS].shape[2]))
        k = np.searchsorted(np.cumsum(mixture[WEIGHTS][c]), rng.random(size)).clip(
            max=mixture[WEIGHTS].shape[1] - 1
        )
        drawn.append(mixture[MEANS][c, k] + noise * np.sqrt(mixture[VARIANCES][c, k]))
    x = np.concatenate(drawn) if drawn else np.zeros((0, mixture[MEANS].shape[2]))
    squared = (mixture[MEANS] ** 2 + mixture[VARIANCES]).sum(axis=2)
    length = np.sqrt(float((counts * squared).sum()) / max(float(counts.sum()), 1e-300))
    return _of_length(x, float(length), bias), np.repeat(classes, size)


def softmax_head(
    x: Matrix, y: np.ndarray, weights: np.ndarray, classes: int, *, damping: float
) -> Matrix:
    """Train a softmax head ``[C, d]`` by Böhning's preconditioned steps, which never overshoot.

    Parameters
    ----------
    weights : NDArray
        ``[n]``, what each row counts; they add up to 1.
    damping : float
        λ of an L2 penalty λ / 2 |W|².
    """
    targets = np.eye(classes)[y]
    heavy = x * weights[:, None]
    inverse = preconditioner(x.T @ heavy, 1.0, damping=2 * damping)
    head = np.zeros((classes, x.shape[1]))
    for _ in range(_STEPS):
        scores = x @ head.T
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        residuals = scores / scores.sum(axis=1, keepdims=True) - targets
        head -= 2 * (residuals.T @ heavy + damping * head) @ inverse
    return head
