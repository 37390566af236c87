"""Whitened features are what the formulas say, and the spectrum is read through its noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtl.errors import FedtlError
from fedtl.train.counts import evaluate
from fedtl.train.fit import Examples
from fedtl.train.heads import check_head, initial_head, logits, trained_part
from fedtl.train.whitening import MEAN, PULL, spectrum, whiten


def unit_rows(n: int, d: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(3, 0.1, d) + 1
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(np.hstack([x, np.full((n, 1), 0.1)]).astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 30), d=st.integers(2, 12), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_rows_are_whitened_as_the_formula_says(n: int, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = unit_rows(n, d, seed)
    mean, pull = rng.normal(size=d) * 0.1, rng.normal(size=(d, k)) * 0.3
    got = whiten(x, torch.from_numpy(mean).float(), torch.from_numpy(pull).float()).numpy()
    for row, out in zip(x.double().numpy(), got, strict=True):
        u = row[:-1] - mean
        u /= np.linalg.norm(u)
        z = u - pull @ (pull.T @ u)
        z /= np.linalg.norm(z)
        np.testing.assert_allclose(out[:-1], z, atol=2e-5)
        assert out[-1] == row[-1]


def test_without_whitening_features_are_left_alone() -> None:
    x = unit_rows(5, 4, 1)
    assert whiten(x, torch.zeros(4), torch.zeros(4, 3)) is x


def test_a_row_at_the_mean_stays_finite() -> None:
    x = unit_rows(1, 4, 1)
    assert bool(whiten(x, x[0, :-1], torch.zeros(4, 3)).isfinite().all())


def moments(d: int, strong: int, seed: int = 0, rest: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return second moments of trace 1 with some strong directions, and these."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = np.full(d, rest / (d - strong))
    values[:strong] = (1 - rest) * np.geomspace(4, 1, strong) / np.geomspace(4, 1, strong).sum()
    return (basis * values) @ basis.T, basis[:, :strong]


def symmetric_noise(d: int, sd: float, seed: int = 1) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(d, d)) * sd
    return np.asarray((z + z.T) / 2)


def test_strong_directions_are_damped_to_the_floor_and_the_rest_left_alone() -> None:
    clean, basis = moments(60, 4)
    read = spectrum(clean, noise_sd=0.0, directions=4)
    assert (read.directions, read.pull.shape) == (4, (60, 4))
    damp = np.eye(60) - read.pull @ read.pull.T
    after = damp @ clean @ damp
    floor = 0.3 / 56  # the strongest direction that is not damped
    np.testing.assert_allclose(np.diag(basis.T @ after @ basis), floor, rtol=1e-3)
    assert np.linalg.eigvalsh(after)[-1] == pytest.approx(floor, rel=1e-4)


@pytest.mark.parametrize("sd", [1e-4, 1e-3, 4e-3])
def test_what_drowns_in_noise_is_not_trusted(sd: float) -> None:
    """A direction made of noise would damp what there is to learn."""
    d = 200
    clean, basis = moments(d, 6, rest=0.002)
    radius = sd * math.sqrt(2 * d)
    read = spectrum(clean + symmetric_noise(d, sd), noise_sd=sd, directions=64)
    seen = read.pull[:, : read.directions]
    inside = np.linalg.norm(basis.T @ seen, axis=0) / np.linalg.norm(seen, axis=0)
    assert (inside > 0.7).all()
    clear = int((np.diag(basis.T @ clean @ basis) > 1.2 * radius).sum())
    assert clear <= read.directions <= 6
    nothing = spectrum(symmetric_noise(d, sd, 3) * 0.99, noise_sd=sd, directions=64)
    assert nothing.directions == 0
    assert not nothing.pull.any()


def test_eigenvalues_are_read_without_the_noises_bias() -> None:
    """Otherwise a weak direction would be damped too much: the spiked model's correction."""
    d, sd = 400, 2e-3
    clean, _ = moments(d, 3, rest=0.002)
    radius = sd * math.sqrt(2 * d)
    drawn = [
        spectrum(clean + symmetric_noise(d, sd, seed), noise_sd=sd, directions=20)
        for seed in range(5)
    ]
    floor = 0.25 * radius
    expected = np.sqrt(floor / np.linalg.eigvalsh(clean)[-3:])  # s of each direction
    got = np.mean([np.sort(1 - np.linalg.norm(r.pull, axis=0) ** 2)[:3] for r in drawn], axis=0)
    np.testing.assert_allclose(got, np.sort(expected), rtol=0.05)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8])
def test_evenness_is_the_energy_over_the_strongest_direction_that_is_left(k: int) -> None:
    """A learning rate made for more would diverge along a direction that was not damped."""
    clean, _ = moments(60, 4)
    read = spectrum(clean, noise_sd=0.0, directions=k)
    damp = np.eye(60) - read.pull @ read.pull.T
    after = damp @ clean @ damp
    strongest = np.linalg.eigvalsh(after)[-1]
    assert read.evenness <= np.trace(after) / 1e-3
    assert read.evenness == pytest.approx(np.trace(after) / strongest, rel=0.05)


# ------------------------------------------------------------------------------ as part of a head
def head(d: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = initial_head("linear", d + 1, 3, directions=2)
    return {k: (v + rng.normal(size=v.shape) * 0.2).astype(np.float32) for k, v in made.items()}


def test_a_head_looks_at_whitened_features_wherever_it_is_used() -> None:
    x, made = unit_rows(40, 6, 3), head(6, 4)
    white = whiten(x, torch.from_numpy(made[MEAN]), torch.from_numpy(made[PULL]))
    expected = white.numpy() @ made["weight"].T
    np.testing.assert_allclose(logits(made, x).numpy(), expected, atol=1e-5)
    y = torch.from_numpy(expected.argmax(1))
    assert evaluate(made, Examples.of(x, y), 3).accuracy == 1.0
    assert trained_part(made).keys() == {"weight"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda h: {**h, MEAN: h[MEAN][:-1]},
        lambda h: {**h, PULL: h[PULL][:-1]},
        lambda h: {**h, PULL: h[PULL].ravel()},
        lambda h: {**h, MEAN: h[MEAN] * np.nan},
        lambda h: {k: v for k, v in h.items() if k != MEAN},
        lambda h: {k: v for k, v in h.items() if k != "weight"},
    ],
)
def test_a_received_head_with_a_broken_whitening_is_refused(damage: object) -> None:
    good = head(6, 1)
    check_head(good, width=7, classes=3)
    with pytest.raises(FedtlError) as error:
        check_head(damage(good), width=7, classes=3)  # type: ignore[operator]
    assert error.value.code == "head.invalid"
