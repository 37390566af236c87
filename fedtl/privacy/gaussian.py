"""The exact cost of the Gaussian mechanism (Balle & Wang 2018, arXiv:1805.06530, Theorem 8).

``mu`` is the L2 sensitivity divided by the noise standard deviation. A composition of full-batch
Gaussian releases costs exactly what one release with ``mu = sqrt(sum of mu_i²)`` costs.
"""

from __future__ import annotations

import math

_SQRT2 = math.sqrt(2.0)
_SQRT2PI = math.sqrt(2.0 * math.pi)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta of a Gaussian release at a given epsilon.

    Evaluates ``Φ(mu/2 - ε/mu) - exp(ε) Φ(-mu/2 - ε/mu)`` through Mills ratios, so that nothing
    overflows and no digits cancel in the tail.

    Parameters
    ----------
    mu : float
        Sensitivity over noise standard deviation, >= 0 or infinite.
    epsilon : float
        At least 0.

    Examples
    --------
    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    density = math.exp(-near * near / 2) / _SQRT2PI if abs(near) < 40 else 0.0
    if near <= 0:
        return math.erfc(near / _SQRT2) / 2 - density * _mills(far)
    return density * (_mills(near) - _mills(far))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon of a Gaussian release at a given delta, by bisection from above.

    Parameters
    ----------
    mu : float
        Sensitivity over noise standard deviation, >= 0 or infinite.
    delta : float
        In (0, 1).

    Examples
    --------
    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    # Twice the classical zCDP bound (Bun & Steinke 2016) lies above the root for certain.
    high = 2 * (mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta)))
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    low = 0.0
    while math.isfinite(high) and high - low > 4e-15 * high:
        middle = (low + high) / 2
        if gaussian_delta(mu, middle) <= delta:
            high = middle
        else:
            low = middle
    return high


def _mills(t: float) -> float:
    """Return ``Φ(-t) / φ(t)`` for ``t >= 0``: erfc near the origin, Laplace's fraction beyond."""
    if t < 4:
        return _SQRT2PI / 2 * math.exp(t * t / 2) * math.erfc(t / _SQRT2)
    tail = t
    for k in range(60, 0, -1):
        tail = t + k / tail
    return 1 / tail
