"""Sums that sites release: additive, of the promised sensitivity, with the promised noise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, WIDTH, toy_examples, toy_release

from fedtl.errors import PrivacyError
from fedtl.privacy.plan import Release
from fedtl.train import additive
from fedtl.train.additive import MECHANISMS, deviations
from fedtl.train.fit import Examples
from fedtl.train.objectives import LocalStatistic
from fedtl.train.streams import SeededStreams, SystemStreams

N_CLASSES = len(CLASSES)


class Crossed(LocalStatistic):
    """A scripted sum: features of every second class, and how many there are."""

    def size(self, width: int, classes: int) -> int:
        return width + 1

    def rows(self, x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
        ones = torch.ones(len(x), 1, dtype=x.dtype)
        return torch.cat([x * (1 - 2 * (y % 2))[:, None], ones], dim=1)


sums = partial(additive.sums, statistic=Crossed())
released = partial(additive.released, statistic=Crossed())
shapes = partial(additive.shapes, size=WIDTH + 1)
each = pytest.mark.parametrize("mechanism", MECHANISMS)


def of(mechanism: str, **changes: object) -> Release:
    return toy_release(1, mechanism=mechanism, **changes)


def joined(parts: list[Examples]) -> Examples:
    return Examples.of(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))


@each
def test_sums_over_sites_are_those_of_the_pooled_data(mechanism: str) -> None:
    parts = [toy_examples(20 + at, at) for at in range(4)]
    each_ = [released(p, N_CLASSES, mechanism=mechanism) for p in parts]
    pooled = released(joined(parts), N_CLASSES, mechanism=mechanism)
    for name, values in pooled.items():
        np.testing.assert_allclose(sum(p[name] for p in each_), values, atol=1e-10)
        assert values.shape == shapes(mechanism, WIDTH, N_CLASSES)[name]
        assert values.dtype == np.float64


def test_mean_and_covariance_leave_the_bias_out() -> None:
    examples = toy_examples(30, 1)
    u = examples.x[:, :-1].double().numpy()
    total = released(examples, N_CLASSES, mechanism="mean")["sum"]
    np.testing.assert_allclose(total, u.sum(axis=0), atol=1e-10)
    gram = released(examples, N_CLASSES, mechanism="covariance")["gram"]
    np.testing.assert_allclose(gram, (u.T @ u)[np.triu_indices(WIDTH - 1)], atol=1e-10)


def in_units_of_noise(moved: dict[str, np.ndarray], release: Release) -> float:
    """Return how far sums moved, divided by the noise on each entry: at most 1 / multiplier."""
    needed = deviations(release, WIDTH, release.mechanism)
    return float(np.sqrt(sum(np.sum((moved[n] / needed[n]) ** 2) for n in moved)))


@each
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), loud=st.floats(0.01, 50), clip=st.floats(0.1, 3))
def test_one_example_moves_the_sums_no_further_than_promised(
    mechanism: str, seed: int, loud: float, clip: float
) -> None:
    examples, release = toy_examples(12, seed), of(mechanism, clip_norm=clip)
    x = examples.x.clone()
    x[0] *= loud
    more = Examples.of(x, examples.y)
    fewer = Examples.of(x[1:], examples.y[1:])
    with_, without = (
        sums(e, N_CLASSES, mechanism=mechanism, release=release) for e in (more, fewer)
    )
    moved = {name: with_[name] - without[name] for name in with_}
    bound = 1 / release.noise_multiplier
    assert in_units_of_noise(moved, release) <= bound * (1 + 1e-9)
    if loud > 40 and clip < 1:
        assert in_units_of_noise(moved, release) > 0.99 * bound  # the promise is not a loose one


@each
@pytest.mark.parametrize("size", [2, 5])
def test_a_group_moves_them_no_further_than_one_example(mechanism: str, size: int) -> None:
    examples, release = toy_examples(12, 3), of(mechanism, clip_norm=0.5, unit="group")
    groups = ["big"] * size + [f"p{at}" for at in range(12 - size)]
    with_ = Examples.of(examples.x, examples.y, groups)
    without = Examples.of(examples.x[size:], examples.y[size:], groups[size:])
    both = [sums(e, N_CLASSES, mechanism=mechanism, release=release) for e in (with_, without)]
    moved = {name: both[0][name] - both[1][name] for name in both[0]}
    assert in_units_of_noise(moved, release) <= (1 + 1e-9) / release.noise_multiplier


@each
def test_noise_has_the_promised_deviation_and_is_new_every_round(mechanism: str) -> None:
    release, d = of(mechanism, clip_norm=0.7), 60
    nothing = Examples.of(torch.zeros(0, d), torch.zeros(0, dtype=torch.int64))
    drawn = [
        released(nothing, 3, mechanism=mechanism, release=release, streams=SeededStreams(1, r, "a"))
        for r in range(40)
    ]
    for name, deviation in deviations(release, d, mechanism).items():
        values = (
            np.stack([part[name].ravel() for part in drawn])
            / np.broadcast_to(deviation, drawn[0][name].shape).ravel()
        )
        assert values.std() == pytest.approx(1, rel=0.05)
        assert abs(np.corrcoef(values[:2])[0, 1]) < 5 / values.shape[1] ** 0.5


@each
def test_shared_noise_is_not_added_here(mechanism: str) -> None:
    """Whoever releases these sums must seal them: see tests/transport/test_transport_secure.py."""
    release = of(mechanism, honest_sites=3)
    got = released(toy_examples(9, 1), N_CLASSES, mechanism=mechanism, release=release)
    plain = sums(toy_examples(9, 1), N_CLASSES, mechanism=mechanism, release=release)
    for name, values in plain.items():
        np.testing.assert_array_equal(got[name], values)


@each
def test_what_a_release_does_not_cover_is_refused(mechanism: str) -> None:
    others = [of(name) for name in MECHANISMS if name != mechanism] + [toy_release()]
    for release in others:
        for honest in (0, 3):
            with pytest.raises(PrivacyError, match="does not cover") as error:
                released(
                    toy_examples(5, 1),
                    N_CLASSES,
                    mechanism=mechanism,
                    release=replace(release, honest_sites=honest),
                )
            assert error.value.code == "plan.mismatch"
    with pytest.raises(PrivacyError, match="needs streams"):
        released(toy_examples(5, 1), N_CLASSES, mechanism=mechanism, release=of(mechanism))


@each
def test_a_real_sites_noise_is_of_whole_numbers(mechanism: str) -> None:
    """With floating-point noise, what is left without all records but one tells of that one."""
    release, examples = of(mechanism, clip_norm=0.7), toy_examples(40, 2)
    told = [
        released(examples, N_CLASSES, mechanism=mechanism, release=release, streams=SystemStreams())
        for _ in range(300)
    ]
    exact = sums(examples, N_CLASSES, mechanism=mechanism, release=release)
    for name, deviation in deviations(release, WIDTH, mechanism).items():
        smallest = min(np.min(d) for d in deviations(release, WIDTH, mechanism).values())
        step = 2.0 ** (np.floor(np.log2(smallest)) - 28)
        for part in told:
            steps = part[name] / step
            np.testing.assert_array_equal(steps, np.rint(steps))
        noise = (np.stack([part[name] for part in told]) - exact[name]) / deviation
        assert noise.std() == pytest.approx(1, rel=0.05)
        assert abs(noise.mean()) < 4 / noise.size**0.5
