"""Calibration: the noise must hold the promise over the whole run, and be no larger than needed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.calibrate import calibrate, check_budget
from fedtl.privacy.events import ComposedEvent, GaussianEvent, PoissonGaussianEvent


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 100), st.floats(1e-12, 1e-2), st.integers(1, 10**6))
def test_full_batch_noise_is_the_smallest_that_holds(epsilon, delta, count):
    noise = calibrate(lambda s: GaussianEvent(s, count), epsilon=epsilon, delta=delta)
    assert epsilon_of(GaussianEvent(noise, count), delta) <= epsilon
    assert epsilon_of(GaussianEvent(noise * (1 - 1e-8), count), delta) > epsilon


@pytest.mark.parametrize(("accountant", "epsilon"), [("auto", 0.5), ("rdp", 8.0)])
def test_sampled_noise_is_the_smallest_that_holds(accountant, epsilon):
    def run(noise):
        return PoissonGaussianEvent(noise, 0.1, 300)

    noise = calibrate(run, epsilon=epsilon, delta=1e-5, accountant=accountant)
    assert epsilon_of(run(noise), 1e-5, accountant=accountant) <= epsilon
    assert epsilon_of(run(noise / 1.0005), 1e-5, accountant=accountant) > epsilon


def test_what_was_spent_before_is_counted():
    past = GaussianEvent(5.0, 1)
    fresh = calibrate(lambda s: GaussianEvent(s, 1), epsilon=2.0, delta=1e-5)
    after = calibrate(lambda s: ComposedEvent((past, GaussianEvent(s, 1))), epsilon=2.0, delta=1e-5)
    assert after == pytest.approx((fresh**-2 - 5.0**-2) ** -0.5, rel=1e-6)


def test_a_spent_budget_is_refused():
    past = GaussianEvent(0.5, 1)
    with pytest.raises(PrivacyError, match=r"missed however large the noise.*already spent"):
        calibrate(lambda s: ComposedEvent((past, GaussianEvent(s, 1))), epsilon=1.0, delta=1e-5)


def test_a_run_without_releases_needs_no_noise_and_says_so():
    with pytest.raises(PrivacyError, match="next to no noise"):
        calibrate(lambda s: GaussianEvent(s, 0), epsilon=1.0, delta=1e-5)


def test_an_unknown_accountant_is_refused():
    with pytest.raises(PrivacyError, match="Did you mean 'rdp'"):
        calibrate(lambda s: GaussianEvent(s, 1), epsilon=1.0, delta=1e-5, accountant="rpd")


def test_the_exact_accountant_refuses_samples():
    with pytest.raises(PrivacyError, match="sampled"):
        calibrate(
            lambda s: PoissonGaussianEvent(s, 0.1, 1),
            epsilon=1.0,
            delta=1e-5,
            accountant="gaussian",
        )


@pytest.mark.parametrize("epsilon", [0, -1.0, math.nan, math.inf, -math.inf, 1e5])
def test_epsilon_out_of_range_is_named(epsilon):
    with pytest.raises(PrivacyError, match=r"epsilon = .* Choose an epsilon"):
        check_budget(epsilon, 1e-5)
    with pytest.raises(PrivacyError, match="epsilon"):
        calibrate(lambda s: GaussianEvent(s, 1), epsilon=epsilon, delta=1e-5)


@pytest.mark.parametrize("delta", [0, -1e-5, 1, 1.5, math.nan, math.inf, 0.02, 0.5])
def test_delta_out_of_range_is_named(delta):
    with pytest.raises(PrivacyError, match=r"delta = .* Choose a delta"):
        check_budget(1.0, delta)


def test_a_useless_delta_is_explained():
    with pytest.raises(PrivacyError, match="one unit in 20 to be published"):
        check_budget(1.0, 0.05)
