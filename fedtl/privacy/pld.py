"""Privacy loss distributions of Poisson-sampled Gaussian releases, through dp-accounting.

Discretised pessimistically (connect the dots, Doroshenko et al. 2022, arXiv:2207.04380), so that a
coarse grid only makes the answer larger. The grid is refined until that stops mattering.
Compositions go through an FFT, whose rounding error is of the order of machine precision times the
number of releases: it is paid for out of delta, and a delta that drowns in it is refused.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fedtl.errors import PrivacyError
from fedtl.privacy.events import Releases
from fedtl.privacy.gaussian import gaussian_delta, gaussian_epsilon

GRID_STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
MAX_CELLS = 3e6
MAX_MEAN_LOSS = 2e3
CONVERGED = 2e-3


def pld_epsilon(releases: Sequence[Releases], delta: float) -> float:
    """Return an upper bound of epsilon, tight to about 2e-4 of its value.

    Parameters
    ----------
    releases : sequence of Releases
        Not empty, every ``noise_multiplier`` above 0.
    delta : float
        In (0, 1).

    Raises
    ------
    PrivacyError
        ``delta`` is too small for the number of releases.
    """
    full = gaussian_epsilon(full_batch_mu(releases), delta)
    if not _sampling_helps(releases):
        return full
    resolved = delta - rounding_of_delta(releases)
    if resolved < delta / 2:
        raise unresolved(delta, releases)
    return min(full, _refined(releases, lambda loss: loss.get_epsilon_for_delta(resolved)))


def pld_delta(releases: Sequence[Releases], epsilon: float) -> float:
    """Return an upper bound of delta at a given epsilon; arguments as in :func:`pld_epsilon`."""
    full = gaussian_delta(full_batch_mu(releases), epsilon)
    if not _sampling_helps(releases):
        return full
    bound = _refined(releases, lambda loss: loss.get_delta_for_epsilon(epsilon))
    return min(full, bound + rounding_of_delta(releases))


def full_batch_mu(releases: Sequence[Releases]) -> float:
    """Return ``sqrt(sum count / noise²)``: exact for full batches, an upper bound with sampling.

    Examples
    --------
    >>> full_batch_mu([Releases(1.0, 4.0, 9)])
    0.75
    """
    if any(r.noise_multiplier == 0 for r in releases):
        return math.inf
    return math.hypot(*(math.sqrt(r.count) / r.noise_multiplier for r in releases))


def rounding_of_delta(releases: Sequence[Releases]) -> float:
    """Return what the FFT's rounding may have taken from delta (measured: below this)."""
    return sys.float_info.epsilon * sum(r.count for r in releases)


def unresolved(delta: float, releases: Sequence[Releases]) -> PrivacyError:
    """Say that a delta lies below what a discretised accountant can tell from rounding."""
    return PrivacyError(
        f"delta = {delta:g} cannot be told from rounding errors over "
        f"{sum(r.count for r in releases)} sampled releases.",
        next_step="Raise delta, take full batches, or set accountant = 'rdp'.",
        code="privacy.delta-unresolved",
    )


def _sampling_helps(releases: Sequence[Releases]) -> bool:
    """Say whether a grid can pay: some release is sampled, and the loss is not absurdly large."""
    losses = [(0.5 / r.noise_multiplier / r.noise_multiplier, r) for r in releases]
    mean = sum(loss * max(1.0, r.sampling_rate * r.count) for loss, r in losses)
    return mean <= MAX_MEAN_LOSS and any(r.sampling_rate < 1 for r in releases)


def _refined(releases: Sequence[Releases], read: Callable[[Any], float]) -> float:
    best = math.inf
    for step, finer in zip(GRID_STEPS, (*GRID_STEPS[1:], 0.0), strict=True):
        loss = _composed(releases, step)
        value = float(read(loss))
        # The error falls with step²: a tenth of what the last refinement gained is left.
        converged = best - value <= CONVERGED * value
        best = min(best, value)
        if converged or finer == 0 or _width(releases, loss) > MAX_CELLS * finer:
            break
    return best


def _composed(releases: Sequence[Releases], step: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(value_discretization_interval=step)
    full = [r for r in releases if r.sampling_rate == 1]
    if full:
        total = pld.from_gaussian_mechanism(
            standard_deviation=1 / full_batch_mu(full), value_discretization_interval=step
        )
    for part in releases:
        if part.sampling_rate < 1:
            one = pld.from_gaussian_mechanism(
                standard_deviation=part.noise_multiplier,
                sampling_prob=part.sampling_rate,
                value_discretization_interval=step,
            )
            total = total.compose(one.self_compose(part.count))
    return total


def _width(releases: Sequence[Releases], loss: Any) -> float:
    """Return about how much privacy loss a grid has to span, on both sides of 0."""
    single = max(10 / r.noise_multiplier + 0.5 / r.noise_multiplier**2 for r in releases)
    return 2 * (single + min(float(loss.get_epsilon_for_delta(1e-9)), 1e9))
