"""The exact Gaussian cost against 60-digit arithmetic and published values."""

from __future__ import annotations

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtl.privacy.gaussian import gaussian_delta, gaussian_epsilon

mpmath.mp.dps = 60


def slow_delta(mu, epsilon):
    """Evaluate the formula of the paper as printed, in 60 digits."""
    mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
    near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return mpmath.ncdf(near) - mpmath.exp(epsilon) * mpmath.ncdf(far)


def slow_epsilon(mu, delta):
    high = mpmath.mpf(mu) ** 2 + 20 * mpmath.mpf(mu)
    low = mpmath.mpf(0)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (low, middle) if slow_delta(mu, middle) <= delta else (middle, high)
    return high


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 1.6), st.floats(-12, -2))
def test_epsilon_is_correct_to_1e_9(log_mu, log_delta):
    mu, delta = 10**log_mu, 10**log_delta
    expected = float(slow_epsilon(mu, delta))
    if 1e-3 <= expected <= 1e3:
        assert gaussian_epsilon(mu, delta) == pytest.approx(expected, rel=1e-9, abs=0)


@settings(max_examples=200, deadline=None)
@given(st.floats(-3, 2), st.floats(-3, 3))
def test_delta_is_correct_in_the_tail(log_mu, log_epsilon):
    mu, epsilon = 10**log_mu, 10**log_epsilon
    expected = slow_delta(mu, epsilon)
    if expected > 1e-200:
        assert gaussian_delta(mu, epsilon) == pytest.approx(float(expected), rel=1e-8, abs=0)


@given(st.floats(1e-4, 100), st.floats(1e-12, 0.5))
def test_epsilon_and_delta_are_inverse(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon * (1 - 1e-9)) >= delta * (1 - 1e-6)


def test_edges():
    assert gaussian_delta(0.0, 1.0) == 0
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_delta(float("inf"), 1.0) == 1
    assert gaussian_epsilon(float("inf"), 1e-5) == float("inf")
    assert gaussian_epsilon(1e200, 1e-5) == float("inf")
    assert gaussian_epsilon(1e3, 1e-5) == pytest.approx(float(slow_epsilon(1e3, 1e-5)), rel=1e-9)


@pytest.mark.parametrize(
    ("mu", "epsilon", "delta"),
    # dp-accounting: three releases of noise sqrt(3); one of noise 1/3.
    [(1.0, 1.0, 0.12693674), (3.0, 1.0, 0.7876007414)],
)
def test_published_deltas(mu, epsilon, delta):
    assert gaussian_delta(mu, epsilon) == pytest.approx(delta, abs=1e-8)
