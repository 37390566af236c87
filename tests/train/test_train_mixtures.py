"""Mixtures by federated expectation maximisation: scikit-learn's, for any split; and from noise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from fedtl.errors import StrategyError
from fedtl.privacy.plan import Release
from fedtl.strategies import make_strategy
from fedtl.strategies.fedpft import FedPFT
from fedtl.testing import check_strategy
from fedtl.train.additive import released, sums
from fedtl.train.fit import Examples
from fedtl.train.mixtures import first_mixture, next_mixture, noised_mixture, split_mixture
from fedtl.train.objectives.mixed import (
    MEANS,
    VARIANCES,
    WEIGHTS,
    MixtureMoments,
    log_densities,
    stretch,
)
from fedtl.types import Arrays

C, D = 3, 6


def examples(n: int, seed: int, *, modes: int = 2, noise: float = 0.25) -> Examples:
    """Unit features around some centres for each class, and the bias."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(C, modes, D))
    y = rng.integers(0, C, n)
    x = centres[y, rng.integers(0, modes, n)] + noise * rng.normal(size=(n, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return joined(x, y)


def joined(x: np.ndarray, y: np.ndarray) -> Examples:
    x = np.column_stack([x, np.full(len(x), 0.1)])
    return Examples.of(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


def rows(data: Examples, at: np.ndarray) -> Examples:
    chosen = torch.from_numpy(np.asarray(at, np.int64))
    return Examples.of(data.x[chosen], data.y[chosen])


def told(
    data: Examples, mixture: Arrays, release: Release | None = None, classes: int = C
) -> np.ndarray:
    statistic = MixtureMoments(components=mixture[WEIGHTS].shape[1])
    return sums(
        data, classes, mechanism="sums", release=release, statistic=statistic, sent=mixture
    )["sum"]


def stepped(data: Examples, mixture: Arrays) -> dict[str, np.ndarray]:
    parts = told(data, mixture).reshape(C, mixture[WEIGHTS].shape[1], -1)
    return next_mixture(parts, mixture)[0]


def begun(data: Examples, components: int = 2, seed: int = 1) -> dict[str, np.ndarray]:
    first = stepped(data, first_mixture(C, components, D))
    return split_mixture(first, np.random.default_rng(seed))


def likelihood(data: Examples, mixture: Arrays) -> float:
    sent = {name: torch.from_numpy(values) for name, values in mixture.items()}
    found = log_densities(data.x[:, :-1].double(), data.y, sent)
    return float(torch.logsumexp(found, dim=1).mean())


def learned(parts: Sequence[Examples], rounds: int, **options: object) -> FedPFT:
    """Return the strategy after some rounds at some sites, without messages."""
    strategy = make_strategy("fedpft", {"components": 2, "samples": 60, **options})
    assert isinstance(strategy, FedPFT)
    strategy.mixture = first_mixture(C, 2, D)
    for _ in range(rounds):
        strategy.learn([told(part, strategy.mixture) for part in parts])
    return strategy


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), sites=st.integers(1, 6), n=st.integers(30, 90))
def test_any_split_in_any_order_gives_the_pooled_mixture(seed: int, sites: int, n: int) -> None:
    data, rng = examples(n, seed), np.random.default_rng(seed)
    owner = rng.integers(0, sites, n)  # sites may be empty
    parts = [rows(data, np.flatnonzero(owner == s)) for s in range(sites)]
    rng.shuffle(parts)  # type: ignore[arg-type]
    pooled, split = learned([data], 4), learned(parts, 4)
    for name, values in pooled.mixture.items():
        np.testing.assert_allclose(split.mixture[name], values, atol=1e-8, rtol=0)
    both = split.head_of(*split.learn([told(part, pooled.mixture) for part in parts]))
    head = pooled.head_of(*pooled.learn([told(data, pooled.mixture)]))
    np.testing.assert_allclose(both, head, atol=1e-8 * np.abs(head).max(), rtol=0)


@pytest.mark.parametrize("components", [2, 3])
def test_the_mixture_is_scikit_learns_from_the_same_start(components: int) -> None:
    data = examples(200, 1)
    start = mixture = begun(data, components)
    for _ in range(6):
        mixture = stepped(data, mixture)
    for c in range(C):
        theirs = GaussianMixture(
            components,
            covariance_type="diag",
            reg_covar=1e-6,
            tol=0.0,
            max_iter=6,
            weights_init=start[WEIGHTS][c],
            means_init=start[MEANS][c],
            precisions_init=1 / start[VARIANCES][c],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(data.x[data.y == c][:, :-1].double().numpy())
        np.testing.assert_allclose(mixture[WEIGHTS][c], theirs.weights_, atol=1e-9)
        np.testing.assert_allclose(mixture[MEANS][c], theirs.means_, atol=1e-9)
        np.testing.assert_allclose(mixture[VARIANCES][c], theirs.covariances_, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), components=st.integers(2, 4))
def test_the_likelihood_never_falls(seed: int, components: int) -> None:
    data = examples(120, seed)
    mixture, found = begun(data, components, seed), []
    for _ in range(8):
        found.append(likelihood(data, mixture))
        mixture = stepped(data, mixture)
    assert (np.diff(found) > -1e-3).all()  # but for what is added to small variances
    assert found[-1] > found[0] + 0.1


def test_one_step_by_hand() -> None:
    """Two points, two components, and a class that nobody has."""
    data = joined(np.array([[0.0, 1.0], [0.6, 0.8]]), np.array([0, 0]))
    before = {
        WEIGHTS: np.array([[0.5, 0.5], [1.0, 0.0], [0.3, 0.7]]),
        MEANS: np.array([[[0.0, 1], [1, 0]], [[0, 0], [0, 0]], [[5, 5], [6, 6]]], float),
        VARIANCES: np.ones((3, 2, 2)),
    }
    # squared distances 0 and 2 of the first point, 0.4 and 0.8 of the second
    r = np.array([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-0.2))])
    parts = told(data, before).reshape(C, 2, 5)
    np.testing.assert_allclose(parts[0, :, 0], [r.sum(), 2 - r.sum()], atol=1e-7)
    found, counts = next_mixture(parts, before)
    np.testing.assert_allclose(found[WEIGHTS][0, 0], r.sum() / 2, atol=1e-7)
    mean = 0.6 * r[1] / r.sum()
    np.testing.assert_allclose(found[MEANS][0, 0, 0], mean, atol=1e-7)
    variance = 0.36 * r[1] / r.sum() - mean**2 + 1e-6
    np.testing.assert_allclose(found[VARIANCES][0, 0, 0], variance, atol=1e-7)
    for name, values in found.items():
        np.testing.assert_array_equal(values[1:], before[name][1:])
    assert counts[1:].sum() == 0


def bimodal(n: int, seed: int) -> Examples:
    """Eight classes, each with a rare second kind."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(8, 2, 16))
    y, kind = rng.integers(0, 8, n), rng.choice(2, n, p=[0.85, 0.15])
    x = centres[y, kind] / np.linalg.norm(centres[y, kind], axis=1, keepdims=True)
    x += 0.05 * rng.normal(size=x.shape)
    return joined(x / np.linalg.norm(x, axis=1, keepdims=True), y)


def test_two_components_see_what_one_cannot() -> None:
    data, held_out = bimodal(1000, 1), bimodal(1000, 2)
    one, two = (
        make_strategy("fedpft", {"components": k, "samples": 1000, "damping": 1e-4}) for k in (1, 2)
    )
    assert isinstance(one, FedPFT)
    assert isinstance(two, FedPFT)
    two.mixture = first_mixture(8, 2, 16)
    for _ in range(two.rounds):
        found = two.learn([told(data, two.mixture, classes=8)])
    wrong = [
        float(((held_out.x.double().numpy() @ h.T).argmax(1) != held_out.y.numpy()).mean())
        for h in (one.solve([released(data, 8, mechanism="statistics")]), two.head_of(*found))
    ]
    assert wrong[0] > 0.04
    assert wrong[1] < 0.01


# ---------------------------------------------------------------------------------------- privately
def test_no_example_of_length_one_is_clipped_unless_it_is_peaked() -> None:
    data, mixture = examples(100, 2), begun(examples(100, 2))
    release = Release(mechanism="sums", clip_norm=FedPFT.sums_norm)
    wide = [rows(data, [at]) for at in range(100)]
    lengths = np.array([np.linalg.norm(told(one, mixture)) for one in wide])
    clipped = np.array([np.linalg.norm(told(one, mixture, release)) for one in wide])
    np.testing.assert_allclose(clipped, lengths.clip(max=3**0.5), atol=1e-9)
    assert (lengths > 1.4).any()
    assert stretch(12) == 2.0


def noised(data: Examples, deviation: float, seed: int) -> tuple[Arrays, Arrays, np.ndarray]:
    """Return the mixtures of exact and of noised sums from one start, and its counts."""
    before, rng = begun(data), np.random.default_rng(seed)
    exact = told(data, before).reshape(C, 2, -1)
    parts = exact + deviation * rng.normal(size=exact.shape)
    found, counts = noised_mixture(
        parts, parts.sum(axis=1), before, deviation=deviation, of_whole=2**0.5 * deviation
    )
    return next_mixture(exact, before)[0], found, counts


def test_of_little_noise_the_mixture_is_that_of_the_sums() -> None:
    exact, found, _ = noised(examples(600, 1), 1e-4, 1)
    for name, values in exact.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_of_much_noise_one_gaussian_a_class_is_left() -> None:
    _, found, counts = noised(examples(600, 1), 50.0, 1)
    for name in (MEANS, VARIANCES):
        np.testing.assert_allclose(found[name][:, 0], found[name][:, 1], atol=1e-12)
    assert np.isfinite(counts).all()
    assert counts.sum() > 0
    assert all(np.isfinite(values).all() for values in found.values())


def test_class_sums_of_all_rounds_are_averaged() -> None:
    strategy, data = learned([examples(300, 1)], 0), examples(300, 1)
    strategy._deviation = 3.0
    for seed in range(4):
        exact = told(data, strategy.mixture)
        noise = 3.0 * np.random.default_rng(seed).normal(size=exact.shape)
        strategy.learn([exact + noise])
    assert strategy.told is not None
    whole = strategy.told / strategy.precision
    u = data.x[:, :-1].double().numpy()
    off = whole[:, 1 : 1 + D] - np.stack([u[data.y == c].sum(0) for c in range(C)])
    expected = (1 / 9 + 3 / 18) ** -0.5  # once one component's noise, then twice that of two
    assert strategy.precision**-0.5 == pytest.approx(expected)
    assert off.std() == pytest.approx(expected, rel=0.5)


def test_the_kit_finds_nothing_and_sums_are_enough() -> None:
    laws = ["runs", "inputs", "order", "resume", "stacked", "privacy"]
    told = ["secure aggregation", "distributed noise"]
    options = {"components": 2, "em_rounds": 2, "samples": 300}
    report = check_strategy("fedpft", options=options, laws=[*laws, *told])
    assert {v.law: v.seen for v in report.verdicts if v.law in told} == dict.fromkeys(told, "yes")


@pytest.mark.parametrize("options", [{"components": 0}, {"components": 2, "em_rounds": 0}])
def test_options_out_of_range_are_named(options: dict[str, int]) -> None:
    with pytest.raises(StrategyError, match="= 0 must be above 0"):
        make_strategy("fedpft", options)


def test_a_mixture_is_no_start_of_one_round() -> None:
    start = make_strategy("fedpft", {"components": 2, "em_rounds": 3})
    with pytest.raises(StrategyError, match="takes 4 rounds, not one"):
        make_strategy("refined", {"start": start})
