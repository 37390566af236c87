"""Whole-number noise: an exact sampler of the discrete Gaussian, many numbers at a time.

Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
arXiv:2004.00010. Every choice is made by comparing random whole numbers, so the distribution is
exact and no floating-point number gives anything away (Mironov 2012). Shares of it that several
sites add up are for all purposes a discrete Gaussian of the summed variance: with a deviation of
1024 steps and more, by a factor of exp(-10^6) (Kairouz, Liu, Steinke 2021, arXiv:2102.06387,
theorem 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import PrivacyError

Words = Callable[[int], NDArray[np.uint64]]
"""``words(n)`` returns fresh random 64-bit words."""

Trial = Callable[[NDArray[np.intp]], NDArray[np.bool_]]

LEAST_DEVIATION, LARGEST_DEVIATION = 1 << 10, 1 << 56
_ARITHMETIC = 1e-6
"""What rounding in float64 arithmetic may add to a contribution, relative to its bound."""


def discrete_gaussian(deviation: int, n: int, words: Words) -> NDArray[np.int64]:
    """Return ``n`` independent numbers with P[x] proportional to exp(-x² / (2 deviation²)).

    Parameters
    ----------
    deviation : int
        From 1 to 2^56.
    words : callable
        The randomness: of the operating system at a real site.

    Raises
    ------
    PrivacyError
        With code ``privacy.step``: the deviation is out of range.
    """
    if not 1 <= deviation <= LARGEST_DEVIATION:
        raise PrivacyError(
            f"deviation = {deviation} steps is not from 1 to 2^56.",
            next_step="Choose a plan with less noise, or a finer step.",
            code="privacy.step",
        )
    out = np.empty(0, np.int64)
    while len(out) < n:
        candidates = _laplace(deviation, 2 * (n - len(out)) + 16, words)
        out = np.concatenate([out, candidates[_accepted(candidates, deviation, words)]])
    return out[:n]


def enlarged(deviations: list[NDArray[np.float64]], step: float, noise_multiplier: float) -> float:
    """Return the factor on noise that pays for rounding values to steps before it is added.

    Rounding moves neighbouring vectors apart by up to a step an entry more.

    Parameters
    ----------
    deviations : list of NDArray
        Of all entries of a release.
    noise_multiplier : float
        The deviations divided by the L2 sensitivity.
    """
    spread = sum(float(np.sum((step / d) ** 2)) for d in deviations)
    return 1 + _ARITHMETIC + noise_multiplier * math.sqrt(spread)


def whole_noise(
    deviations: NDArray[np.float64], step: float, words: Words, *, least: int = 1
) -> NDArray[np.int64]:
    """Return noise in steps, entry by entry of at least the deviations ``[m]``.

    Parameters
    ----------
    least : int
        Fewest steps of a deviation. Shares of noise that are to add up to the promised distribution
        need :data:`LEAST_DEVIATION`.

    Raises
    ------
    PrivacyError
        With code ``privacy.step``: a deviation is below ``least`` steps or beyond 2^56.
    """
    out = np.empty(len(deviations), np.int64)
    for value in np.unique(deviations):
        steps = math.ceil(value / step)
        if steps < least:
            raise PrivacyError(
                f"The noise is {steps} steps of {step:g}, less than {least}.",
                next_step="Choose a plan with more noise, or a finer step.",
                code="privacy.step",
            )
        at = np.flatnonzero(deviations == value)
        out[at] = discrete_gaussian(steps, len(at), words)
    return out


def _laplace(scale: int, n: int, words: Words) -> NDArray[np.int64]:
    """Return about ``n / 2`` and more numbers with P[x] proportional to exp(-|x| / scale)."""
    low = _below(scale, n, words)
    low = low[_exp_minus(len(low), lambda at: _below(scale, len(at), words) < low[at], words)]
    high, going = np.zeros(len(low), np.int64), np.arange(len(low))
    while len(going):
        going = going[_exp_minus_one(len(going), words)]
        high[going] += 1
    values = low.astype(np.int64) + scale * high
    negative = (words(len(values)) >> np.uint64(63)).astype(bool)
    values[negative] *= -1
    once = ~(negative & (values == 0))  # zero must not come twice
    kept: NDArray[np.int64] = values[once]
    return kept


def _accepted(values: NDArray[np.int64], scale: int, words: Words) -> NDArray[np.bool_]:
    """Accept with probability exp(-(|x| - s)² / (2 s²)).

    With ``||x| - s| = a s + b`` that is exp(-1/2)^(a²) exp(-b/s)^a exp(-b² / (2 s²)).
    """
    away = np.abs(np.abs(values) - scale)
    a, b = away // scale, (away % scale).astype(np.uint64)

    def share(at: NDArray[np.intp]) -> NDArray[np.bool_]:
        below: NDArray[np.bool_] = _below(scale, len(at), words) < b[at]
        return below

    def half(at: NDArray[np.intp]) -> NDArray[np.bool_]:
        even: NDArray[np.bool_] = _below(2, len(at), words) == 0
        return even

    kept = _exp_minus(len(values), lambda at: share(at) & share(at) & half(at), words)
    for done in range(int(a.max(initial=0))):
        more = np.flatnonzero(kept & (a > done))
        kept[more] = _exp_minus(len(more), partial(_of, share, more), words)
    halves = a * a
    for done in range(int(halves.max(initial=0))):
        more = np.flatnonzero(kept & (halves > done))
        if not len(more):
            break
        kept[more] = _exp_minus(len(more), half, words)
    return kept


def _of(trial: Trial, numbers: NDArray[np.intp], at: NDArray[np.intp]) -> NDArray[np.bool_]:
    return trial(numbers[at])


def _exp_minus_one(n: int, words: Words) -> NDArray[np.bool_]:
    return _exp_minus(n, lambda at: np.ones(len(at), bool), words)


def _exp_minus(n: int, trial: Trial, words: Words) -> NDArray[np.bool_]:
    """Return n coins that are true with probability exp(-γ), γ in [0, 1].

    ``trial(at)`` tosses fresh coins of probability γ for the numbers ``at``. Their series of γ/1,
    γ/2, γ/3, ... ends after an odd number with probability exp(-γ) (the paper's algorithm 1).
    """
    out, going, k = np.zeros(n, bool), np.arange(n), 1
    while len(going):
        hit = trial(going) & (_below(k, len(going), words) == 0)
        out[going[~hit]] = k % 2 == 1
        going, k = going[hit], k + 1
    return out


def _below(limit: int, n: int, words: Words) -> NDArray[np.uint64]:
    """Return n whole numbers uniform in [0, limit)."""
    if limit == 1:
        return np.zeros(n, np.uint64)
    most = (1 << 64) - (1 << 64) % limit
    drawn = words(n)
    if most < 1 << 64:
        while (bad := np.flatnonzero(drawn >= np.uint64(most))).size:
            drawn = drawn.copy()
            drawn[bad] = words(len(bad))
    return drawn % np.uint64(limit)
