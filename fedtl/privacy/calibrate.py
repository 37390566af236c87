"""The smallest noise that keeps a whole run within its budget."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import accountant_of, check_delta
from fedtl.privacy.events import Event, releases_of

LARGEST_DELTA = 1e-2
LARGEST_EPSILON = 1e4
NOISE_RANGE = (1e-3, 1e6)


def calibrate(
    event_of: Callable[[float], Event],
    *,
    epsilon: float,
    delta: float,
    accountant: str = "auto",
    tolerance: float | None = None,
) -> float:
    """Return the smallest noise multiplier whose event costs at most ``epsilon`` at ``delta``.

    Parameters
    ----------
    event_of : Callable
        Makes the event of the whole run from a noise multiplier. It may include releases of the
        past, with noise of their own.
    epsilon : float
        In (0, 1e4].
    delta : float
        In (0, 0.01].
    accountant : str
        Name in :data:`fedtl.privacy.accountant.ACCOUNTANTS`.
    tolerance : float, optional
        Largest relative excess of the result over the smallest noise. Default: 1e-9 where all
        releases are full batches, 1e-4 otherwise.

    Returns
    -------
    float
        A noise multiplier that was checked to meet the target: errors go to the safe side.

    Raises
    ------
    PrivacyError
        An argument is out of range, or no noise from 0.001 to a million is the answer.

    Examples
    --------
    >>> from fedtl.privacy.events import GaussianEvent
    >>> round(calibrate(lambda noise: GaussianEvent(noise, 1), epsilon=1.0, delta=1e-5), 6)
    3.730632
    """
    check_budget(epsilon, delta)
    judge = accountant_of(accountant)

    def cost(noise: float) -> float:
        return judge.epsilon(event_of(noise), delta)

    low, high = _bracket(lambda noise: cost(noise) <= epsilon, epsilon, delta)
    goal = _default_tolerance(event_of(high)) if tolerance is None else max(tolerance, 1e-12)
    return _narrowed(lambda noise: math.log(cost(noise) / epsilon), low, high, goal)


def check_budget(epsilon: float, delta: float) -> None:
    """Refuse a target that promises nothing or cannot be met.

    Raises
    ------
    PrivacyError
        ``epsilon`` is not in (0, 1e4] or ``delta`` is not in (0, 0.01].

    Examples
    --------
    >>> check_budget(8, 1e-5)
    """
    if not 0 < epsilon <= LARGEST_EPSILON:
        raise PrivacyError(
            f"epsilon = {epsilon} is not in (0, {LARGEST_EPSILON:g}].",
            next_step="Choose an epsilon of about 0.5 to 10 (smaller is more private), or switch "
            "privacy off.",
        )
    check_delta(delta)
    if delta > LARGEST_DELTA:
        raise PrivacyError(
            f"delta = {delta} allows one unit in {1 / delta:.0f} to be published outright.",
            next_step="Choose a delta well below 1 / number of units, for example 1e-5.",
        )


def _bracket(meets: Callable[[float], bool], epsilon: float, delta: float) -> tuple[float, float]:
    """Return a noise that misses the target and one, at most twice as large, that meets it."""
    least, most = NOISE_RANGE
    if meets(1.0):
        high = 1.0
        while meets(high / 2):
            high /= 2
            if high < least:
                raise _no_noise("met with next to no noise", epsilon, delta)
        return high / 2, high
    low = 1.0
    while not meets(low * 2):
        low *= 2
        if low > most:
            raise _no_noise("missed however large the noise", epsilon, delta)
    return low, low * 2


def _narrowed(excess: Callable[[float], float], low: float, high: float, goal: float) -> float:
    """Close in on the root of a falling function, from above, and return the upper end.

    The root is guessed on a straight line in log-log, a little too low and too high in turn so that
    both ends move; every third step halves the bracket whatever the line says.
    """
    above, below = excess(low), excess(high)
    step = 0
    while high > low * (1 + goal):
        step += 1
        width = math.log(high / low)
        share = above / (above - below) + (-1) ** step * goal / (3 * width)
        lawful = step % 3 and math.isfinite(above) and 0 < share < 1
        middle = low * math.exp(width * (share if lawful else 0.5))
        value = excess(middle)
        if value <= 0:
            high, below = middle, value
        else:
            low, above = middle, value
    return high


def _default_tolerance(event: Event) -> float:
    return 1e-9 if all(r.sampling_rate == 1 for r in releases_of(event)) else 1e-4


def _no_noise(what: str, epsilon: float, delta: float) -> PrivacyError:
    return PrivacyError(
        f"The budget epsilon = {epsilon}, delta = {delta:g} is {what}.",
        next_step="Check the number of releases and what earlier runs have already spent.",
        code="privacy.no-noise",
    )
