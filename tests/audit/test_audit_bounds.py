"""The bounds: published values to 1e-5, and never more than the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from fedtl.audit.bounds import (
    Guesses,
    clopper_pearson,
    guesses,
    independent,
    independent_mu,
    one_run,
    one_run_at,
    one_run_curve,
    p_value,
    rates_epsilon,
)
from fedtl.errors import PrivacyError
from fedtl.privacy.gaussian import gaussian_epsilon

EVEN = special.ndtri((np.arange(10_000) + 0.5) / 10_000)
# jax_privacy/auditing_test.py: 10,000 in, 10,000 out, significance 0.05, delta 1e-6
PUBLISHED = [
    (0.0, 0.0, 0.0),
    (1.0, 1.13346, 2.164749),
    (2.0, 2.311945, 4.7218075),
    (4.0, 4.395568, 9.133752),
]


@pytest.mark.parametrize(("shift", "any_mechanism", "curve"), PUBLISHED)
def test_the_one_run_bounds_have_their_published_values(
    shift: float, any_mechanism: float, curve: float
) -> None:
    counted = guesses(EVEN + shift, EVEN)
    assert one_run(counted, delta=1e-6) == pytest.approx(any_mechanism, rel=1e-5)
    assert one_run_curve(counted, delta=1e-6) == pytest.approx(curve, rel=1e-5)


@pytest.mark.parametrize(
    ("canaries", "guessed", "correct", "bound"),
    [
        (1000, 100, 80, 0.9553),
        (1000, 100, 95, 2.1652),
        (1000, 100, 100, 3.4654),
        (100, 100, 100, 3.490),
        (1000, 1000, 1000, 5.782),
        (10_000, 10_000, 10_000, 7.834),
    ],
)
def test_a_single_threshold_has_its_published_bound(
    canaries: int, guessed: int, correct: int, bound: float
) -> None:
    digits = 4 if guessed == 100 and canaries == 1000 else 3
    found = one_run_at(canaries, guessed, correct, delta=1e-5)
    assert round(found, digits) == pytest.approx(bound, abs=1e-9)


def test_without_the_correction_over_thresholds_the_bound_would_be_inflated() -> None:
    counted = guesses(EVEN + 1, EVEN)
    found = [
        one_run_at(counted.canaries, int(h + m), int(h), delta=1e-6)
        for h, m in zip(counted.hits, counted.misses, strict=True)
        if 0 < h + m < 1000
    ]
    assert round(max(found), 2) == 2.39  # the valid one is 1.133


def test_the_p_value_is_that_of_the_theorem_spelled_out() -> None:
    for canaries, guessed, wrong, epsilon, delta in [
        (10, 1, 0, 0.0, 1e-3),
        (100, 10, 1, 0.5, 1e-6),
        (100, 100, 10, 1.0, 0.1),
        (50, 9, 9, 0.3, 1e-3),
    ]:
        q, correct = math.exp(epsilon) / (1 + math.exp(epsilon)), guessed - wrong
        mass = [stats.binom.pmf(k, guessed, q) for k in range(guessed + 1)]
        beta = sum(mass[correct:])
        alphas = [sum(mass[correct - i : correct]) / i for i in range(1, correct + 1)]
        slow = min(1.0, beta + 2 * canaries * delta * max(alphas, default=0.0))
        assert p_value(canaries, guessed, correct, epsilon, delta) == pytest.approx(slow, rel=1e-9)


def test_clopper_pearson_limits_are_exact() -> None:
    for seen, trials in [(0, 20), (3, 20), (19, 20)]:
        limit = float(clopper_pearson(seen, trials, significance=0.05))
        assert stats.binom.cdf(seen, trials, limit) == pytest.approx(0.05, rel=1e-9)
    assert float(clopper_pearson(20, 20, significance=0.05)) == 1.0
    fnr, fpr = (float(clopper_pearson(k, 1000, significance=0.025)) for k in (400, 3))
    expected = math.log((1 - fnr - 1e-5) / fpr)
    assert rates_epsilon(400, 1000, 3, 1000, delta=1e-5) == pytest.approx(expected)
    assert rates_epsilon(990, 1000, 990, 1000, delta=1e-5) == 0.0


def test_no_bound_exceeds_the_truth_on_many_draws() -> None:
    """A Gaussian mechanism of mu = 1.5, forty times: at 95 % hardly any draw may pass its cost."""
    rng, mu, delta = np.random.default_rng(3), 1.5, 1e-5
    truth, found = gaussian_epsilon(mu, delta), []
    for _ in range(40):
        counted = guesses(rng.normal(mu, 1, 600), rng.normal(0, 1, 600))
        found.append(
            [bound(counted, delta=delta) for bound in (one_run, one_run_curve, independent)]
        )
    above = (np.array(found) > truth).sum(axis=0)
    assert above.max() <= 2
    careful, curve, tight = np.median(found, axis=0)
    assert 0.1 * truth < careful < curve < tight < truth
    assert tight > 0.6 * truth


def test_chance_certifies_nothing() -> None:
    rng = np.random.default_rng(5)
    counted = guesses(rng.normal(size=2000), rng.normal(size=2000))
    assert one_run(counted, delta=1e-5) < 0.1
    assert one_run_curve(counted, delta=1e-5) < 0.3
    assert independent_mu(counted) < 0.1


def test_every_pareto_threshold_is_kept_and_no_other() -> None:
    """Against the obvious definition, on small random scores with ties."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        inside, outside = rng.integers(0, 6, 8) + 1.0, rng.integers(0, 6, 7) * 1.0
        counted = guesses(inside, outside)
        points = [
            (int((inside >= t).sum()), int((outside >= t).sum()))
            for t in [math.inf, *sorted({*inside, *outside}, reverse=True)]
        ]
        kept = list(zip(counted.hits.tolist(), counted.misses.tolist(), strict=True))
        assert kept[0] == (0, 0)
        assert kept[-1] == (8, 7)
        assert set(kept) <= set(points)
        assert min(point for point in points if point[0] == 8) in kept
        for hits, misses in points:  # none lies below the hull of those that are kept
            assert hits == 8 or np.interp(hits, *zip(*kept, strict=True)) <= misses + 1e-9


@pytest.mark.parametrize(("inside", "outside"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_scores_that_say_nothing_are_refused(inside: list[float], outside: list[float]) -> None:
    with pytest.raises(PrivacyError, match="scores of canaries"):
        guesses(inside, outside)


def test_perfect_scores_have_finite_bounds() -> None:
    counted = Guesses(np.array([0, 500, 500]), np.array([0, 0, 500]))
    assert 4 < one_run(counted, delta=1e-5) < 6
    assert 8 < one_run_curve(counted, delta=1e-5) < 40
    assert 8 < independent(counted, delta=1e-5) < 60
