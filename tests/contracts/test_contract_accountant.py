"""The law of accountants, run by every accountant of the registry."""

from __future__ import annotations

import itertools
import math

import pytest

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import ACCOUNTANTS, accountant_of
from fedtl.privacy.events import ComposedEvent, GaussianEvent, PoissonGaussianEvent
from fedtl.privacy.gaussian import gaussian_epsilon

DELTA = 1e-5
EPSILON_ONLY = ("prv", "rdp")


FULL_BATCHES_ONLY = ("gaussian",)


class _Law:
    """Subclass the laws below with your own registry to check your own accountant."""

    registry = ACCOUNTANTS

    @pytest.fixture
    def cost(self, name):
        judge = self.registry[name]()
        return lambda event, delta=DELTA: judge.epsilon(event, delta)


@pytest.mark.parametrize("name", sorted(ACCOUNTANTS))
class TestAccountant(_Law):
    """What every accountant owes."""

    def test_only_nothing_is_free(self, cost):
        assert cost(ComposedEvent(())) == 0
        assert cost(GaussianEvent(1.0, 0)) == 0
        assert cost(GaussianEvent(1e9, 1)) > 0
        assert cost(GaussianEvent(1.0, 1), 0.9) > 0

    def test_no_noise_means_no_privacy(self, cost):
        assert cost(GaussianEvent(0.0, 1)) == math.inf
        assert cost(ComposedEvent((GaussianEvent(9.0, 1), GaussianEvent(0.0, 1)))) == math.inf
        assert cost(GaussianEvent(0.0, 0)) == 0

    def test_a_stranger_is_refused(self, cost):
        for event in (None, 3.0, "gaussian", {"count": 0}, ComposedEvent((object(),))):
            with pytest.raises(PrivacyError, match="unknown"):
                cost(event)

    @pytest.mark.parametrize("delta", [0, 1, -1e-5, 1.5, math.nan, math.inf])
    def test_a_delta_out_of_range_is_refused(self, cost, delta):
        with pytest.raises(PrivacyError, match="delta"):
            cost(GaussianEvent(1.0, 1), delta)

    @pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (4.0, 100), (0.5, 3), (60.0, 10)])
    @pytest.mark.parametrize("delta", [1e-7, 1e-3])
    def test_full_batches_never_cost_less_than_the_exact_value(self, cost, noise, count, delta):
        exact = gaussian_epsilon(math.sqrt(count) / noise, delta)
        assert cost(GaussianEvent(noise, count), delta) >= exact * (1 - 1e-9)

    def test_sampling_rate_one_is_a_full_batch(self, cost):
        assert cost(PoissonGaussianEvent(4.0, 1.0, 10)) == cost(GaussianEvent(4.0, 10))

    def test_more_full_releases_cost_more(self, cost):
        costs = [cost(GaussianEvent(5.0, count)) for count in (1, 2, 3, 30, 300)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_less_noise_costs_more(self, cost):
        costs = [cost(GaussianEvent(noise, 10)) for noise in (40.0, 10.0, 2.0, 1.9, 0.5)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_a_smaller_delta_costs_more(self, cost):
        costs = [cost(GaussianEvent(2.0, 1), delta) for delta in (1e-2, 1e-4, 1e-6, 1e-8)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_delta_agrees_with_epsilon_or_is_refused(self, name):
        judge = self.registry[name]()
        event = GaussianEvent(2.0, 3)
        if name in EPSILON_ONLY:
            with pytest.raises(PrivacyError, match="not the other way round"):
                judge.delta(event, 1.0)
            return
        assert judge.delta(event, judge.epsilon(event, DELTA)) == pytest.approx(DELTA, rel=1e-3)
        assert judge.delta(ComposedEvent(()), 1.0) == 0
        assert judge.delta(GaussianEvent(0.0, 1), 1.0) == 1
        assert 0 < judge.delta(GaussianEvent(1e3, 1), 100.0) < 1e-100
        for epsilon in (-1.0, math.inf, math.nan):
            with pytest.raises(PrivacyError, match="epsilon"):
                judge.delta(event, epsilon)


@pytest.mark.parametrize("name", sorted(set(ACCOUNTANTS) - set(FULL_BATCHES_ONLY)))
class TestAccountantOfSamples(_Law):
    """What an accountant of Poisson-sampled releases owes besides."""

    def test_a_rare_and_noisy_sample_is_not_free(self, cost):
        assert cost(PoissonGaussianEvent(1e3, 1e-6, 1)) > 0

    def test_more_sampled_releases_cost_more(self, cost):
        costs = [cost(PoissonGaussianEvent(2.0, 0.05, count)) for count in (1, 10, 100, 110)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_a_larger_sample_costs_more(self, cost):
        costs = [cost(PoissonGaussianEvent(2.0, rate, 50)) for rate in (0.01, 0.1, 0.11, 0.5, 1)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_less_noise_on_samples_costs_more(self, cost):
        costs = [cost(PoissonGaussianEvent(noise, 0.1, 50)) for noise in (8.0, 2.0, 1.0, 0.7)]
        assert all(a < b for a, b in itertools.pairwise(costs))

    def test_a_further_event_costs_more(self, cost):
        one = PoissonGaussianEvent(2.0, 0.1, 50)
        for other in (GaussianEvent(5.0, 1), PoissonGaussianEvent(3.0, 0.2, 10)):
            assert cost(ComposedEvent((one, other))) > cost(one)

    def test_order_does_not_matter_by_a_bit(self, cost):
        parts = (
            GaussianEvent(5.0, 2),
            PoissonGaussianEvent(2.0, 0.1, 20),
            PoissonGaussianEvent(3.0, 0.2, 10),
        )
        assert len({cost(ComposedEvent(order)) for order in itertools.permutations(parts)}) == 1

    def test_splitting_a_run_into_rounds_changes_nothing(self, cost):
        rounds = ComposedEvent((PoissonGaussianEvent(2.0, 0.1, 10),) * 5)
        assert cost(rounds) == cost(PoissonGaussianEvent(2.0, 0.1, 50))


@pytest.mark.parametrize("name", FULL_BATCHES_ONLY)
def test_an_accountant_of_full_batches_refuses_samples(name):
    with pytest.raises(PrivacyError) as refusal:
        accountant_of(name).epsilon(PoissonGaussianEvent(2.0, 0.1, 5), DELTA)
    assert refusal.value.code == "privacy.event-unsupported"


def test_an_unknown_accountant_lists_the_known():
    with pytest.raises(PrivacyError, match=r"Did you mean 'pld'.*auto, gaussian, pld, prv, rdp"):
        accountant_of("pdl")
