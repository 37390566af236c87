"""Ridge heads from added statistics equal ridge heads from pooled data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow import Fixed
from toys import CLASSES, toy_examples, toy_release

from fedtl.data import partition
from fedtl.errors import PrivacyError
from fedtl.privacy.plan import Release
from fedtl.train.additive import statistics
from fedtl.train.fit import Examples
from fedtl.train.ridge import add, ridge_head, unpack
from fedtl.train.streams import SeededStreams


def rows(examples: Examples, at: np.ndarray) -> Examples:
    chosen = torch.from_numpy(np.asarray(at, np.int64))
    return Examples.of(examples.x[chosen], examples.y[chosen])


def pooled(examples: Examples, ridge: float) -> np.ndarray:
    """Solve the normal equations of the pooled data, in float64."""
    x = examples.x.double().numpy()
    y = np.eye(len(CLASSES))[examples.y.numpy()]
    return np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y).T


@given(st.integers(0, 2**16), st.integers(1, 8), st.floats(0.01, 10))
def test_any_split_in_any_order_gives_the_pooled_head(seed: int, sites: int, ridge: float) -> None:
    examples, rng = toy_examples(90, seed), np.random.default_rng(seed)
    owner = rng.integers(0, sites, 90)  # sites may be empty
    parts = [statistics(rows(examples, np.flatnonzero(owner == s)), 3) for s in range(sites)]
    rng.shuffle(parts)  # type: ignore[arg-type]
    head = ridge_head(add(parts), ridge=ridge)
    np.testing.assert_allclose(head, pooled(examples, ridge), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, None], ids=str)
def test_label_skew_changes_nothing(alpha: float | None) -> None:
    examples = toy_examples(600, 1)
    kind = "iid" if alpha is None else "dirichlet"
    cut = partition(
        examples.y.numpy(),
        np.zeros(600, bool),
        kind=kind,
        sites=6,
        seed=2,
        alpha=alpha or 1.0,
        min_examples=1,
    )
    parts = [statistics(rows(examples, site.train), 3) for site in cut]
    head = ridge_head(add(parts), ridge=0.1)
    np.testing.assert_allclose(head, pooled(examples, 0.1), atol=1e-8)


def test_vector() -> None:
    """Weights of feature 0 by an independent implementation, without a bias feature."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    y = rng.integers(0, 3, 200)
    features = centres[y] + rng.normal(size=(200, 8))
    x = torch.from_numpy(features)
    examples = Examples(x, torch.from_numpy(y), x.norm(dim=1))
    head = ridge_head(statistics(examples, 3), ridge=1.0)
    np.testing.assert_allclose(head[:, 0], VECTOR, atol=1e-8)


VECTOR = [-0.01100908, -0.0350093, -0.12312069]


def statistics_release(**changes: object) -> Release:
    return toy_release(1, mechanism="statistics", **changes)


def test_private_statistics_carry_the_promised_noise() -> None:
    """Noise of sd z sqrt(2) R² on the diagonal, that over sqrt(2) beside it, z sqrt(2) R on B."""
    release, d = statistics_release(clip_norm=0.7, noise_multiplier=2.0), 60
    nothing = Examples.of(torch.zeros(0, d), torch.zeros(0, dtype=torch.int64))
    parts = [
        statistics(nothing, 3, release=release, streams=SeededStreams(1, r, "a")) for r in range(60)
    ]
    grams = np.stack([unpack(p["gram"]) for p in parts])
    assert np.array_equal(grams, grams.transpose(0, 2, 1))
    diagonal = np.diagonal(grams, axis1=1, axis2=2)
    beside = grams[:, *np.triu_indices(d, 1)]
    expected = 2.0 * 2**0.5
    assert diagonal.std() == pytest.approx(expected * 0.7**2, rel=0.05)  # 3,600 numbers
    assert beside.std() == pytest.approx(expected * 0.7**2 / 2**0.5, rel=0.01)
    assert np.stack([p["moment"] for p in parts]).std() == pytest.approx(expected * 0.7, rel=0.03)


@given(st.integers(0, 2**16), st.floats(0.1, 100))
def test_one_example_moves_the_statistics_by_the_accounted_sensitivity(
    seed: int, size: float
) -> None:
    """At most sqrt(2) in units of (R², R), however large the example's features."""
    release, examples = statistics_release(clip_norm=0.7), toy_examples(10, seed)
    more = Examples.of(
        torch.cat([examples.x, size * toy_examples(1, seed + 1).x]),
        torch.cat([examples.y, torch.tensor([seed % 3])]),
    )
    with_, without = (statistics(e, 3, release=release, streams=Fixed()) for e in (more, examples))
    gram = (unpack(with_["gram"]) - unpack(without["gram"])) / 0.7**2
    moment = (with_["moment"] - without["moment"]) / 0.7
    assert np.sqrt((gram**2).sum() + (moment**2).sum()) <= 2**0.5 + 1e-6


@pytest.mark.parametrize("release", [toy_release(), toy_release(poisson=True)])
def test_plans_for_something_else_are_refused(release: Release) -> None:
    with pytest.raises(PrivacyError) as error:
        statistics(toy_examples(5, 1), 3, release=release, streams=Fixed())
    assert error.value.code == "plan.mismatch"


def test_private_statistics_without_streams_are_refused() -> None:
    with pytest.raises(PrivacyError):
        statistics(toy_examples(5, 1), 3, release=statistics_release())


@given(st.integers(1, 12))
def test_a_triangle_unpacks_to_its_symmetric_matrix(d: int) -> None:
    square = np.random.default_rng(d).normal(size=(d, d))
    square = square + square.T
    np.testing.assert_array_equal(unpack(square[np.triu_indices(d)]), square)


def test_noise_raises_the_ridge_and_normalising_gives_unit_weights() -> None:
    stats = statistics(toy_examples(200, 1), 3)
    plain, noisy = ridge_head(stats, ridge=0.1), ridge_head(stats, ridge=0.1, noise_sd=50.0)
    assert np.linalg.norm(noisy) < 0.5 * np.linalg.norm(plain)
    unit = ridge_head(stats, ridge=0.1, normalise=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
