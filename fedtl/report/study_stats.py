"""Means over seeds, and whether a difference from the baseline is more than chance.

Seeds are paired: run 1 of a method and run 1 of the baseline share their data, cut and cohorts, so
differences are tested and not two samples. The family of tests that is corrected together is the
whole study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedtl.report.study_result import CellResult, StudyResult
from fedtl.report.words import plural

CONFIDENCE = 0.95
POWER = 0.8
LOW_POWER = 6
"""Seeds below which the signed-rank test cannot reach p = 0.05, whatever the differences are."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with the half-width of its 95 % confidence interval (Student's t).

    Attributes
    ----------
    half : float or None
        None where a single value tells nothing of the spread.
    """

    n: int
    mean: float
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean | None:
        """Return the mean of some values; None where there are none.

        Examples
        --------
        >>> Mean.of([1.0, 2.0, 3.0]).half is not None, Mean.of([1.0]).half, Mean.of([])
        (True, None, None)
        """
        if not values:
            return None
        n, mean = len(values), float(np.mean(values))
        if n < 2:
            return cls(n, mean, None)
        from scipy.stats import t

        quantile = float(t.ppf((1 + CONFIDENCE) / 2, n - 1))
        return cls(n, mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n))


@dataclass(frozen=True, slots=True)
class Versus:
    """A method against the baseline, seed by seed.

    Attributes
    ----------
    difference : Mean
        Of the paired differences; positive where the method is better.
    p_t, p_wilcoxon : float or None
        Two-sided paired t-test and exact signed-rank test; None with fewer than two seeds, or for
        the t-test where all differences are equal and not zero.
    p_holm : float or None
        ``p_t`` corrected for all tests of the study.
    """

    difference: Mean
    p_t: float | None
    p_wilcoxon: float | None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a study's table: an entry of the compared axis among given others.

    Attributes
    ----------
    group : tuple of str
        Labels of the other varied axes.
    accuracy, worst : Mean or None
        Of the heads that are the results, over all held-out examples and at the worst site.
    n_bytes, epsilon, seconds : Mean or None
        Of whole runs.
    versus : Versus or None
        None for the baseline itself, and without it.
    """

    group: tuple[str, ...]
    label: str
    accuracy: Mean | None
    worst: Mean | None
    n_bytes: Mean | None
    epsilon: Mean | None
    seconds: Mean | None
    versus: Versus | None = None


def table_of(result: StudyResult) -> list[Row]:
    """Return the rows of a study's table, in the plan's order."""
    rows = []
    for group, entries in result.groups().items():
        base = _by_seed(entries.get(result.baseline, []))
        for label, cells in entries.items():
            versus = None if label == result.baseline else _versus(_by_seed(cells), base)
            rows.append(_row(group, label, cells, versus))
    return _corrected(rows)


def _row(
    group: tuple[str, ...], label: str, cells: Sequence[CellResult], versus: Versus | None
) -> Row:
    last = [cell.last for cell in cells if cell.last is not None]
    ends = [cell.rounds[-1] for cell in cells if cell.rounds]
    return Row(
        group,
        label,
        accuracy=Mean.of([r.accuracy for r in last if r.accuracy is not None]),
        worst=Mean.of([r.worst_accuracy for r in last if r.worst_accuracy is not None]),
        n_bytes=Mean.of([float(r.n_bytes) for r in ends]),
        epsilon=Mean.of([r.epsilon for r in ends if r.epsilon is not None]),
        seconds=Mean.of([r.seconds for r in ends]),
        versus=versus,
    )


def _by_seed(cells: Sequence[CellResult]) -> dict[int, float]:
    return {c.seed: c.last.accuracy for c in cells if c.last and c.last.accuracy is not None}


def _versus(own: Mapping[int, float], base: Mapping[int, float]) -> Versus | None:
    differences = [own[seed] - base[seed] for seed in own if seed in base]
    if (mean := Mean.of(differences)) is None:
        return None
    return Versus(mean, paired_t(differences), signed_rank(differences))


def paired_t(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of a t-test of paired differences.

    Parameters
    ----------
    differences : sequence of float
        One per pair.

    Returns
    -------
    float or None
        1 where all are zero; None for fewer than two, and where all are equal and not zero: there
        is no spread to measure them by.

    Examples
    --------
    >>> paired_t([0.01]) is None, paired_t([0.0, 0.0]), round(paired_t([0.01, 0.02, 0.04]), 4)
    (True, 1.0, 0.1181)
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    if spread <= 1e-12 * max(float(np.abs(values).max()), 1e-300):
        return None if values.any() else 1.0
    from scipy.stats import t

    statistic = float(values.mean()) / (spread / math.sqrt(len(values)))
    return float(2 * t.sf(abs(statistic), len(values) - 1))


def signed_rank(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test (1945).

    Zeros are left out, ties share their ranks, and the distribution is that of all signs: unlike
    the normal approximation it holds for a few pairs.

    Returns
    -------
    float or None
        1 where all differences are zero, None for fewer than two of them.

    Examples
    --------
    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5]), signed_rank([1.0])
    (0.0625, None)
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return None
    values = values[np.abs(values) > 1e-12]
    if not len(values):
        return 1.0
    from scipy.stats import rankdata

    # shares of one and the same number of examples differ by rounding only; tied ranks are halves
    doubled = np.rint(2 * rankdata(np.abs(values).round(12))).astype(int)
    ways = np.ones(1)
    for rank in doubled:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    low = min(doubled[values > 0].sum(), doubled[values < 0].sum())
    return float(min(1.0, 2 * ways[: low + 1].sum() / ways.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979, Scand. J. Statist. 6:65).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = least
    return corrected


def _corrected(rows: list[Row]) -> list[Row]:
    tested = [at for at, row in enumerate(rows) if row.versus and row.versus.p_t is not None]
    known = [row.versus.p_t for row in rows if row.versus and row.versus.p_t is not None]
    for at, p in zip(tested, holm(known), strict=True):
        if (versus := rows[at].versus) is not None:
            rows[at] = replace(rows[at], versus=replace(versus, p_holm=p))
    return rows


def detectable(n: int) -> float:
    """Return the difference that a paired t-test of n pairs finds in four of five studies.

    In standard deviations of the differences, at p = 0.05, two-sided.

    Examples
    --------
    >>> [round(detectable(n), 2) for n in (3, 5, 10)]
    [3.26, 1.68, 1.0]
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    limit = float(t.ppf((1 + CONFIDENCE) / 2, n - 1))

    def missing(size: float) -> float:
        return float(nct.sf(limit, n - 1, size * math.sqrt(n))) - POWER

    return float(brentq(missing, 0.0, 50.0))


def power_note(seeds: int, tests: int) -> str:
    """Say what tests over so many seeds can and cannot find.

    Parameters
    ----------
    tests : int
        How many are corrected together.
    """
    if seeds < 2:
        return "One seed tells nothing of the spread: no interval and no test is given."
    if seeds == 2:
        return "Two seeds: there is hardly any power, and an interval is very wide."
    text = (
        f"With {seeds} seeds a single paired t-test finds, four times out of five, differences of "
        f"{detectable(seeds):.1f} of their standard deviations or more"
    )
    text += (
        f"; Holm's correction over {plural(tests, 'test')} asks for more. " if tests > 1 else ". "
    )
    if seeds < LOW_POWER:
        text += (
            "The power is low: no significance is no sign of equality, and the signed-rank test "
            f"cannot come below p = {2 / 2**seeds:g}."
        )
    return text.strip()
