"""Sampled releases: bounds stay bounds where grids, FFTs and floating point would give way."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import accountant_of, epsilon_of
from fedtl.privacy.events import ComposedEvent, GaussianEvent, PoissonGaussianEvent
from fedtl.privacy.gaussian import gaussian_epsilon

# So close to 1 that nothing changes by sampling, yet dp-accounting takes its general path.
NEARLY_ONE = 1 - 1e-12


@pytest.mark.parametrize(
    ("noise", "count", "delta"),
    [(10.0, 100, 1e-5), (10.0, 100, 1e-10), (50.0, 20000, 1e-9), (100.0, 100000, 1e-9)],
)
def test_rounding_in_the_fft_never_makes_a_release_cheaper(noise, count, delta):
    from fedtl.privacy.events import Releases
    from fedtl.privacy.pld import _refined, rounding_of_delta

    releases = [Releases(NEARLY_ONE, noise, count)]
    resolved = delta - rounding_of_delta(releases)
    found = _refined(releases, lambda loss: loss.get_epsilon_for_delta(resolved))
    exact = gaussian_epsilon(count**0.5 / noise, delta)
    assert exact * (1 - 1e-7) <= found <= exact * 1.01


def test_a_delta_that_drowns_in_rounding_is_refused():
    for name in ("pld", "prv", "auto"):
        with pytest.raises(PrivacyError, match=r"rounding.*rdp"):
            epsilon_of(PoissonGaussianEvent(1.0, 0.01, 100_000), 1e-12, accountant=name)
    assert epsilon_of(PoissonGaussianEvent(1.0, 0.01, 100_000), 1e-12, accountant="rdp") > 20


@pytest.mark.parametrize("noise", [1e-9, 1e-3, 0.01, 0.1])
@pytest.mark.parametrize("count", [1, 10**9])
def test_absurdly_little_noise_costs_no_memory_and_no_discount(noise, count):
    cost = epsilon_of(PoissonGaussianEvent(noise, 0.5, count), 1e-5, accountant="pld")
    assert cost > 0.2 / noise**2


def test_prv_refuses_a_grid_that_would_not_fit():
    with pytest.raises(PrivacyError, match="memory"):
        epsilon_of(PoissonGaussianEvent(0.35, 0.04, 4000), 1e-8, accountant="prv")
    with pytest.raises(PrivacyError, match="finds no bound"):
        epsilon_of(PoissonGaussianEvent(0.02, 0.5, 10), 1e-5, accountant="prv")


@settings(max_examples=12, deadline=None)
@given(st.floats(0.7, 50), st.floats(1e-4, 0.95), st.integers(1, 3000), st.floats(1e-8, 1e-3))
def test_pld_lies_below_renyi_and_below_a_full_batch(noise, rate, count, delta):
    event = PoissonGaussianEvent(noise, rate, count)
    tight = epsilon_of(event, delta, accountant="pld")
    assert tight <= epsilon_of(GaussianEvent(noise, count), delta)
    assert tight <= epsilon_of(event, delta, accountant="rdp") * (1 + 1e-3) + 1e-3


@settings(max_examples=5, deadline=None)
@given(st.floats(0.8, 5), st.floats(1e-3, 0.5), st.integers(1, 300), st.floats(1e-7, 1e-3))
def test_pld_delta_is_the_inverse_of_epsilon(noise, rate, count, delta):
    event = PoissonGaussianEvent(noise, rate, count)
    judge = accountant_of("pld")
    epsilon = judge.epsilon(event, delta)
    if epsilon > 0.01:
        assert judge.delta(event, epsilon) == pytest.approx(delta, rel=0.05)


def test_mixed_runs_cost_less_than_the_sum_of_their_parts():
    parts = (GaussianEvent(4.0, 2), PoissonGaussianEvent(2.0, 0.1, 50))
    whole = epsilon_of(ComposedEvent(parts), 1e-5)
    alone = [epsilon_of(part, 1e-5) for part in parts]
    assert max(alone) < whole < sum(alone)


def test_exact_accounting_loads_no_privacy_library():
    code = (
        "import sys; from fedtl.privacy.accountant import epsilon_of;"
        "from fedtl.privacy.events import GaussianEvent;"
        "epsilon_of(GaussianEvent(1.0, 1), 1e-5);"
        "print({'torch', 'opacus', 'dp_accounting', 'scipy', 'numpy'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
