"""Class counts and means are in the statistics; under noise they are read with its size in mind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtl.privacy.plan import Release
from fedtl.train.additive import deviations, gram_deviation, statistics
from fedtl.train.classes import ClassSums, Noise, read_classes
from fedtl.train.fit import Examples
from fedtl.train.ridge import add
from fedtl.train.streams import SeededStreams

R = 1.01**0.5


def examples(counts: Sequence[int], seed: int, *, d: int = 20, bias: float = 0.1) -> Examples:
    rng, centres = np.random.default_rng(seed), np.random.default_rng(5).normal(size=(99, d))
    y = np.repeat(np.arange(len(counts)), counts)
    x = 0.3 * centres[y] + 0.2 * rng.normal(size=(len(y), d)) + 0.4
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.column_stack([x, np.full(len(y), bias)]).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(y))


def release(noise: float, honest: int = 0) -> Release:
    return Release(mechanism="statistics", clip_norm=R, noise_multiplier=noise, honest_sites=honest)


def noised(data: Examples, classes: int, noise: float, seed: int) -> ClassSums:
    asked = release(noise)
    streams = SeededStreams(seed, 1, "a")
    return read_classes(statistics(data, classes, release=asked, streams=streams), Noise.of(asked))


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    bias=st.floats(0.01, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_counts_and_means_are_exact_whatever_the_bias(
    counts: list[int], bias: float, seed: int
) -> None:
    data = examples(counts, seed, bias=bias)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(data)), 2)
    parts = [statistics(Examples.of(data.x[at], data.y[at]), len(counts)) for at in halves]
    read = read_classes(add(parts))
    np.testing.assert_allclose(read.counts, counts, atol=1e-9)
    assert read.there.tolist() == [count > 0 for count in counts]
    x, y = data.x.double().numpy()[:, :-1], data.y.numpy()
    for c in np.flatnonzero(counts):
        np.testing.assert_allclose(read.means[c], x[y == c].mean(axis=0), atol=1e-9)
    centred = x - read.means[y]
    np.testing.assert_allclose(read.within(), centred.T @ centred, atol=1e-9)


@pytest.mark.parametrize(("honest", "sites"), [(0, 1), (0, 4), (4, 4)])
def test_the_noise_is_that_of_the_plan(honest: int, sites: int) -> None:
    asked = release(2.0, honest)
    noise = Noise.of(asked).over(sites)
    factor = 1.0 if honest else sites**0.5
    assert noise.gram == pytest.approx(factor * gram_deviation(asked))
    expected = deviations(asked, 21, "statistics")["moment"]
    assert noise.moment == pytest.approx(factor * expected)


SKEWED = [2000, 900, 300, 120, 60]


@pytest.mark.parametrize("noise", [0.6, 1.4, 3.7])
def test_noised_counts_keep_their_skew(noise: float) -> None:
    data = examples(SKEWED, 1)
    for seed in range(4):
        read = noised(data, 5, noise, seed)
        assert read.there[:4].all()
        assert (read.counts[read.there] > 0).all()
        assert (np.diff(read.counts) <= 0).all()
        np.testing.assert_allclose(read.counts[:2], SKEWED[:2], rtol=0.25)


def test_counts_that_are_noise_only_are_taken_for_equal() -> None:
    """Each alone would carry a deviation of 53 of 100."""
    data = examples([100] * 10, 1)
    off = []
    for seed in range(10):
        read = noised(data, 10, 3.7, seed)
        off.append(np.abs(read.counts[read.there] / 100 - 1).max())
    assert np.median(off) < 0.25


def test_class_means_come_closer_by_being_shrunk() -> None:
    data = examples([150] * 10, 1, d=100)
    truth = read_classes(statistics(data, 10)).means
    plain, shrunk = [], []
    for seed in range(5):
        read = noised(data, 10, 3.7, seed)
        asked = release(3.7)
        raw = statistics(data, 10, release=asked, streams=SeededStreams(seed, 1, "a"))["moment"]
        plain.append(np.linalg.norm(raw.T[:, :-1] / 150 - truth))
        shrunk.append(np.linalg.norm(read.means - truth))
    assert (np.array(shrunk) < 0.95 * np.array(plain)).all()


def test_classes_that_do_not_stand_out_of_the_noise_are_nobodys() -> None:
    told = [noised(examples([500, 0, 500, 1], 1), 4, 1.4, seed).there for seed in range(20)]
    assert all(t[0] and t[2] for t in told)
    assert np.mean([t[1] for t in told]) < 0.1
    assert not noised(examples([500, 0, 500, 1], 1), 4, 1.4, 3).sums[1].any()


def test_where_no_class_could_stand_out_none_is_given_up() -> None:
    read = noised(examples([20] * 8, 1), 8, 3.7, 3)
    assert read.there.all()
    assert (read.counts > 0).all()
    assert np.isfinite(read.means).all()
