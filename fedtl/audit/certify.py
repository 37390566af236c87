"""From what an auditor saw to lower bounds on epsilon, over all his ways of looking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.audit.bounds import guesses, independent, mu_of, one_run, one_run_curve
from fedtl.privacy.accountant import accountant_of
from fedtl.privacy.gaussian import gaussian_delta
from fedtl.privacy.release import Release

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
        Hold for a mechanism no worse than a Gaussian one; None where that is not claimed.
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
        Whether the mechanism is claimed to be no worse than a Gaussian one; the last two bounds
        suppose so. See :func:`below_gaussian`.
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


def below_gaussian(release: Release, delta: float) -> bool:
    """Whether a release claims at most the deltas of the Gaussian of equal cost, up to its epsilon.

    Full batches are that Gaussian. Sampled ones stay below it as far as canaries can see, which is
    checked with an accountant at a few points; beyond the epsilon at ``delta``, where only smaller
    deltas are left, they need not.
    """
    if release.sampling_rate == 1:
        return True
    accountant = accountant_of("auto")
    spent = accountant.epsilon(release.event(), delta)
    mu = mu_of(spent, delta)
    points = [spent * share for share in (0.0, 0.25, 0.5, 0.75, 0.9)]
    return all(accountant.delta(release.event(), e) <= gaussian_delta(mu, e) for e in points)
