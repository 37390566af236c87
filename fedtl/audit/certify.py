"""From what an auditor saw to lower bounds on epsilon, over all his ways of looking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.audit.bounds import guesses, independent, one_run, one_run_curve

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """What an auditor makes of the releases.

    Attributes
    ----------
    included : ndarray of bool
        ``[m]``, the truth.
    scores : tuple of ndarray
        By way of looking, ``[m]``: 1 for a canary that was in, 0 for the others, plus noise.
    """

    included: NDArray[np.bool_]
    scores: tuple[Scores, ...]


@dataclass(frozen=True, slots=True)
class Certified:
    """Lower bounds on epsilon; see :mod:`fedtl.audit.bounds`.

    Attributes
    ----------
    one_run : float
        Holds for any mechanism.
    one_run_curve, independent : float or None
        Hold for a full-batch Gaussian mechanism; None where the plan promises another one.
    """

    one_run: float
    one_run_curve: float | None
    independent: float | None

    @property
    def highest(self) -> float:
        """The highest of the bounds."""
        return max(self.one_run, self.one_run_curve or 0.0, self.independent or 0.0)


def certify(
    found: Found, *, delta: float, gaussian: bool = True, significance: float = 0.05
) -> Certified:
    """Turn scores into lower bounds; the significance is shared out to the ways of looking.

    Parameters
    ----------
    gaussian : bool
        Whether every release is a full-batch Gaussian one, as the last two bounds suppose.
    """
    level = significance / len(found.scores)
    counted = [guesses(s[found.included], s[~found.included]) for s in found.scores]
    return Certified(
        max(one_run(c, delta=delta, significance=level) for c in counted),
        max(one_run_curve(c, delta=delta, significance=level) for c in counted)
        if gaussian
        else None,
        max(independent(c, delta=delta, significance=level) for c in counted) if gaussian else None,
    )
