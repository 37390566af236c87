"""What one release of statistics says of the classes: how many, where, and how far apart.

The last feature of every example is the constant b (0.1, see :mod:`fedtl.features.prepare`), so the
moments Σ x one_hot(y)ᵀ carry the class counts in their last row, times b, and the Gram matrix the
number of examples in its last entry, times b². Nothing else has to be asked for.

Under a plan all of it is noised, and the counts most: b is small. So

* a class whose sum does not stand out of the noise counts as one that nobody has, where the sum of
  an average class would;
* the number of examples n is read from the trace of the Gram matrix: prepared rows have length R;
* a class's share of it from how far its sum s_c goes along the sum M of all: n s_c · M / |M|², less
  what noise adds to both products. That has little noise, and is off by some 15 % where classes
  differ along M;
* this and the count are averaged, each weighted by the reciprocal of its variance; the results are
  shrunk towards their mean by as much as is left of their noise says (James & Stein 1961), and
  never are below a hundredth of it;
* the class means are shrunk towards the mean of all in the same way: otherwise a class whose mean
  got long by noise would win everywhere, or nowhere.

Without noise they are what they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.privacy.release import Release
from fedtl.train.additive import gram_deviation
from fedtl.train.ridge import unpack

BIAS = 0.1
"""The constant feature of prepared rows; without noise it is read from the sums instead."""
_LEAST = 0.01
"""Of the mean count: the least that a noised count of a class that somebody has is believed."""
_OFF = 0.15
"""How far a guess at a count from the direction of its class's sum is off, of the mean count."""
_KEPT = 0.1
"""Least share of the distances between class means that is kept: without any, no class wins."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations of the noise on a site's statistics; 0 without a plan.

    Attributes
    ----------
    gram : float
        On the diagonal of the Gram matrix; sqrt(1 / 2) of it elsewhere.
    moment : float
        On every entry of the moments.
    clip_norm : float
        R.
    """

    gram: float = 0.0
    moment: float = 0.0
    clip_norm: float = math.inf

    @classmethod
    def of(cls, release: Release) -> Noise:
        """Return what one site adds; where the noise is shared out, its share."""
        share = 1 / math.sqrt(max(release.honest_sites, 1))
        joint = release.noise_multiplier * math.sqrt(2) * release.clip_norm
        return cls(share * gram_deviation(release), share * joint, release.clip_norm)

    def over(self, sites: int) -> Noise:
        """Return the noise on the sum of so many sites' statistics."""
        factor = math.sqrt(sites)
        return Noise(factor * self.gram, factor * self.moment, self.clip_norm)

    def radius(self, d: int) -> float:
        """Return the spectral norm of the noise on a ``[d, d]`` Gram matrix, σ sqrt(2 d)."""
        return self.gram * math.sqrt(2 * d)


@dataclass(frozen=True, slots=True)
class ClassSums:
    """Statistics, read; features without the bias.

    Attributes
    ----------
    counts : NDArray
        ``[C]``, examples of each class, above 0 where ``there``.
    sums : NDArray
        ``[C, d]``, Σ of the features of each class.
    gram : NDArray
        ``[d, d]``, Σ x xᵀ over all classes.
    there : NDArray
        ``[C]`` bool, classes that somebody has.
    bias : float
        b.
    """

    counts: Matrix
    sums: Matrix
    gram: Matrix
    there: NDArray[np.bool_]
    bias: float

    @property
    def means(self) -> Matrix:
        """``[C, d]``, the class means; 0 for classes that nobody has."""
        return self.sums / np.where(self.there, self.counts, 1.0)[:, None]

    def within(self) -> Matrix:
        """Return the within-class scatter ``[d, d]``: Σ x xᵀ - Σ_c n_c μ_c μ_cᵀ."""
        means, counts = self.means[self.there], self.counts[self.there]
        return self.gram - (means.T * counts) @ means


def read_classes(stats: Mapping[str, Matrix], noise: Noise | None = None) -> ClassSums:
    """Read what statistics say of the classes.

    Parameters
    ----------
    stats : mapping
        Of :func:`fedtl.train.additive.statistics`, added.
    noise : Noise, optional
        What the sums carry.

    Examples
    --------
    Two examples of class 0 with the feature 1, one of class 2 with the feature 3:

    >>> gram, moment = [11.0, 0.5, 0.03], [[2.0, 0.0, 3.0], [0.2, 0.0, 0.1]]
    >>> read = read_classes({"gram": np.array(gram), "moment": np.array(moment)})
    >>> read.counts.round(9).tolist(), read.means.ravel().round(9).tolist()
    ([2.0, 0.0, 1.0], [1.0, 0.0, 3.0])
    """
    noise = noise or Noise()
    full, moment = unpack(stats["gram"]), stats["moment"].T
    gram, sums, told = full[:-1, :-1], moment[:, :-1], moment[:, -1]
    if not noise.moment:
        total = float(told.sum())
        bias = float(full[-1, -1]) / total if total > 0 else BIAS
        counts = told / (bias or BIAS)
        return ClassSums(counts, sums, gram, counts > 0.5, bias or BIAS)
    examples = max(float(np.trace(full)) / noise.clip_norm**2, 1.0)
    there = _there(moment, noise.moment, examples * noise.clip_norm / len(moment))
    counts, shrunk = np.zeros(len(moment)), np.zeros_like(sums)
    if there.any():
        guess = _shares(moment[there], noise.moment) * examples
        counts[there] = averaged(told[there] / BIAS, guess, deviation=noise.moment / BIAS)
        shrunk[there] = shrunk_sums(sums[there], counts[there], noise.moment)
    return ClassSums(counts, shrunk, gram, there, BIAS)


def _there(moment: Matrix, deviation: float, average: float) -> NDArray[np.bool_]:
    """Say which class sums ``[C, d + 1]`` stand 3 deviations out of the noise; all if none could.

    ``average`` bounds the length of an average class's sum; about 0.7 of it are left by the spread
    within the class.
    """
    d = moment.shape[1]
    out = deviation**2 * 3 * math.sqrt(2 * d)
    if 0.5 * average**2 < out:
        return np.ones(len(moment), np.bool_)
    return np.asarray((moment**2).sum(axis=1) > deviation**2 * d + out)


def _shares(moment: Matrix, deviation: float) -> Matrix:
    """Return the classes' shares of all examples, from noised class sums ``[C, d + 1]``."""
    classes, d = moment.shape
    total = moment.sum(axis=0)
    length = float(total @ total) - classes * d * deviation**2
    if length <= 0.5 * float(total @ total):  # there is nothing to go along
        return np.full(classes, 1 / classes)
    return np.asarray((moment @ total - d * deviation**2) / length)


def shrunk_sums(sums: Matrix, counts: Matrix, deviation: float) -> Matrix:
    """Shrink noised class means towards the mean of all; sums ``[C, d]`` in, sums out."""
    middle = sums.sum(axis=0) / counts.sum()
    apart = sums / counts[:, None] - middle
    noise = deviation**2 * sums.shape[1] * float((counts**-2.0).sum())
    lost = noise / max(float((apart**2).sum()), 1e-300)
    return np.asarray(counts[:, None] * (middle + max(1 - lost, _KEPT) * apart))


def averaged(counts: Matrix, guess: Matrix, *, deviation: float) -> Matrix:
    """Average noised counts with a guess at them; none is left near 0.

    Parameters
    ----------
    deviation : float
        Of the noise on the counts, above 0.

    Examples
    --------
    >>> averaged(np.array([100.0, 120, -20]), np.full(3, 100.0), deviation=1e6).round().tolist()
    [100.0, 100.0, 100.0]
    >>> averaged(np.array([100.0, 900, 20]), np.full(3, 340.0), deviation=1e-6).round().tolist()
    [100.0, 900.0, 20.0]
    """
    mean, noise = float(guess.mean()), deviation**2
    off = (_OFF * mean) ** 2
    both = (off * counts + noise * guess) / (off + noise)
    left = off * noise / (off + noise)
    kept = max(1 - left / max(float(both.var()), 1e-300), 0.0)
    out: Matrix = both.mean() + kept * (both - both.mean())
    return out.clip(min=_LEAST * max(mean, 0.0))
