"""Lower bounds on epsilon from the scores of canaries: what an attack has proved.

Each canary was in the training set with probability 1/2, and has a score that is high where it
seems to have been in. A threshold turns scores into guesses; every bound here holds for the best
threshold after a Bonferroni correction over the thresholds that lie on the convex hull of (true,
false) positives, the Pareto thresholds. Three bounds, from the most careful to the tightest:

============== ==================================================================================
one_run        any (epsilon, delta)-DP mechanism, one training run, dependent canaries
               (Steinke, Nasr & Jagielski 2023, arXiv:2305.08846)
one_run_curve  the same, against the trade-off curve of the Gaussian mechanism that costs
               (epsilon, delta) (Mahloujifar, Melis & Chaudhuri 2024, arXiv:2410.22235)
independent    Gaussian curve, canaries with independent noise: Clopper and Pearson's limits of
               both error rates, turned into mu (Nasr et al. 2023, arXiv:2302.07956)
============== ==================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedtl.errors import PrivacyError
from fedtl.privacy.gaussian import gaussian_delta, gaussian_epsilon

MOST_EPSILON = 200.0
_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Guesses:
    """How many canaries score at least a threshold, for each Pareto threshold.

    Attributes
    ----------
    hits, misses : ndarray of int
        ``[K]`` guessed "in" and in, and guessed "in" but out; the last guesses all.
    """

    hits: NDArray[np.int64]
    misses: NDArray[np.int64]

    @property
    def canaries(self) -> int:
        """Number of canaries, in or out."""
        return int(self.hits[-1] + self.misses[-1])


def guesses(inside: ArrayLike, outside: ArrayLike) -> Guesses:
    """Count the guesses at every Pareto threshold.

    Parameters
    ----------
    inside, outside : array_like
        Finite scores of the canaries that were in and of those that were not; none empty.

    Raises
    ------
    PrivacyError
        There is no score of one kind, or one is not a number.

    Examples
    --------
    >>> guesses([1, 3], [0, 2]).hits.tolist()
    [0, 1, 2, 2]
    """
    own = [np.sort(np.asarray(scores, np.float64).ravel()) for scores in (inside, outside)]
    for name, scores in zip(("inside", "outside"), own, strict=True):
        if not len(scores) or np.isnan(scores).any():
            raise PrivacyError(
                f"The {len(scores)} scores of canaries {name} are none, or not all numbers.",
                next_step="Audit with more canaries; 1,000 or more certify something.",
            )
    thresholds = np.append(np.union1d(*own), np.inf)[::-1]
    above = [len(scores) - np.searchsorted(scores, thresholds, side="left") for scores in own]
    at = _hull(np.stack(above, axis=1).astype(np.float64))
    return Guesses(above[0][at], above[1][at])


def _hull(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which ``[K, 2]`` (hits, misses) from (0, 0) on are corners of the convex hull."""
    kept: list[int] = []
    for at, (hits, misses) in enumerate(points):
        while len(kept) > 1:
            (h0, m0), (h1, m1) = points[kept[-2]], points[kept[-1]]
            if (h1 - h0) * (misses - m1) > (hits - h1) * (m1 - m0):
                break
            kept.pop()
        kept.append(at)
    return np.array(kept)


def p_value(canaries: int, guessed: int, correct: int, epsilon: float, delta: float) -> float:
    """Return how likely so many correct guesses are under (epsilon, delta)-DP, at most.

    Steinke et al. 2023, with guesses of "in" only.

    Parameters
    ----------
    canaries, guessed, correct : int
        All canaries; those guessed at; those guessed right.
    """
    q = float(special.expit(epsilon))
    beta = float(_at_least(correct, guessed, q))
    if delta == 0 or not correct:
        return beta
    fewer = np.arange(1, correct + 1)
    mass: NDArray[np.float64] = (_at_least(correct - fewer, guessed, q) - beta) / fewer
    return min(1.0, beta + 2 * canaries * delta * max(float(mass.max()), 0.0))


def _at_least(k: int | NDArray[np.int64], n: int, q: float) -> NDArray[np.float64]:
    """Return P[Bin(n, q) >= k]."""
    return np.where(np.asarray(k) <= 0, 1.0, special.bdtrc(np.asarray(k, np.float64) - 1, n, q))


def one_run_at(
    canaries: int,
    guessed: int,
    correct: int,
    *,
    delta: float,
    significance: float = 0.05,
    least: float = 0.0,
) -> float:
    """Return the largest epsilon that a given number of right guesses refutes, or ``least``.

    Examples
    --------
    >>> round(one_run_at(1000, 100, 95, delta=1e-5), 4)
    2.1652
    """
    return _largest(
        lambda epsilon: p_value(canaries, guessed, correct, epsilon, delta) <= significance, least
    )


def one_run(counted: Guesses, *, delta: float, significance: float = 0.05) -> float:
    """Return a lower bound on epsilon at ``delta`` that is wrong with at most ``significance``."""

    def at(guessed: int, correct: int, level: float, least: float) -> float:
        return one_run_at(
            counted.canaries, guessed, correct, delta=delta, significance=level, least=least
        )

    return _best(counted, significance, at)


def one_run_curve(counted: Guesses, *, delta: float, significance: float = 0.05) -> float:
    """Return a lower bound on epsilon for a mechanism with a Gaussian's trade-off curve."""

    def at(guessed: int, correct: int, level: float, least: float) -> float:
        def refuted(epsilon: float) -> bool:
            mu = mu_of(epsilon, delta)
            return _curve_refuted(counted.canaries, guessed, correct, mu=mu, significance=level)

        return _largest(refuted, least)

    return _best(counted, significance, at)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the mu of the Gaussian that costs exactly (epsilon, delta)."""
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) < delta:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) < delta else (low, middle)
    return low


def _curve_refuted(
    canaries: int, guessed: int, correct: int, *, mu: float, significance: float
) -> bool:
    """Whether so many right guesses are unlikely under mu-GDP (Mahloujifar et al. 2024)."""
    right = significance * correct / canaries
    wrong = significance * (guessed - correct) / canaries
    for i in range(correct - 1, -1, -1):
        quantile = float(special.ndtri(right))
        more = max(wrong, float(special.ndtr(quantile - mu)))
        if more == wrong:
            break
        right = min(right + i / (guessed - i) * (more - wrong), 1.0)
        wrong = more
    return right + wrong > guessed / canaries


def independent(counted: Guesses, *, delta: float, significance: float = 0.05) -> float:
    """Return a lower bound on epsilon for a Gaussian mechanism and independent canaries."""
    return gaussian_epsilon(independent_mu(counted, significance=significance), delta)


def independent_mu(counted: Guesses, *, significance: float = 0.05) -> float:
    """Return the bound on mu = sensitivity / noise behind :func:`independent`."""
    inside, outside = int(counted.hits[-1]), int(counted.misses[-1])
    level = significance / (2 * len(counted.hits))
    missed = clopper_pearson(inside - counted.hits, inside, significance=level)
    alarms = clopper_pearson(counted.misses, outside, significance=level)
    inner = (missed < 1) & (alarms < 1)
    gaps = -special.ndtri(alarms[inner]) - special.ndtri(missed[inner])
    return float(max(0.0, np.max(gaps, initial=0.0)))


def clopper_pearson(
    seen: NDArray[np.int64] | int, trials: int, *, significance: float
) -> NDArray[np.float64]:
    """Return the upper limit of a probability after ``seen`` of ``trials`` (one-sided, exact).

    Examples
    --------
    >>> round(float(clopper_pearson(0, 100, significance=0.05)), 6)
    0.029513
    """
    k = np.asarray(seen, np.float64)
    room = np.maximum(trials - k, 1.0)
    return np.where(k < trials, special.betaincinv(k + 1, room, 1 - significance), 1.0)


def rates_epsilon(
    missed: int, inside: int, alarms: int, outside: int, *, delta: float, significance: float = 0.05
) -> float:
    """Return ln((1 - FNR - delta) / FPR) at the upper limits of both rates.

    For one threshold fixed in advance and independent trials; each limit has half the significance.
    """
    fnr = float(clopper_pearson(missed, inside, significance=significance / 2))
    fpr = float(clopper_pearson(alarms, outside, significance=significance / 2))
    power = 1 - fnr - delta
    return max(0.0, math.log(power / fpr)) if power > 0 else 0.0


def _best(
    counted: Guesses, significance: float, at: Callable[[int, int, float, float], float]
) -> float:
    """Return the best bound over the Pareto thresholds, each at its share of the significance.

    The most precise guesses come first, so that the rest can mostly be passed over: they would
    have to be more precise than the bound found so far allows.
    """
    level = significance / len(counted.hits)
    guessed = counted.hits + counted.misses
    promise = np.ones(len(guessed))
    some = guessed > 0
    promise[some] = [
        float(clopper_pearson(int(m), int(n), significance=significance))
        for m, n in zip(counted.misses[some], guessed[some], strict=True)
    ]
    best = 0.0
    for k in np.argsort(promise, kind="stable"):
        n, v = int(guessed[k]), int(counted.hits[k])
        if n and v / n > special.expit(best):
            best = at(n, v, level, best)
    return best


def _largest(refuted: Callable[[float], bool], least: float) -> float:
    """Return the largest refuted epsilon by bisection, from below; ``least`` if there is none."""
    if not refuted(least):
        return least
    low, high = least, max(1.0, 2 * least)
    while refuted(high):
        if high >= MOST_EPSILON:
            return MOST_EPSILON
        low, high = high, min(2 * high, MOST_EPSILON)
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
