"""The noise of a private release: as large as promised, and never the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import toy_release

from fedtl.rng import stream
from fedtl.train.fit import Examples, fit
from fedtl.train.streams import SeededStreams, SystemStreams
from fedtl.train.task import TrainTask

EMPTY = Examples.of(torch.zeros(0, 200), torch.zeros(0, dtype=torch.int64))


def noise_of(
    streams: list[object], *, steps: int = 1, poisson: bool = False, classes: int = 5
) -> np.ndarray:
    """Return ``[S, classes, 200]``: what empty sites release at learning rate 1, which is noise."""
    heads = torch.zeros(len(streams), classes, 200)
    sampling = "poisson" if poisson else "full"
    task = TrainTask(rounds=1, steps=steps, lr=1.0, sampling=sampling)
    release = toy_release(poisson=poisson)
    sites = [EMPTY] * len(streams)
    return -fit(heads, sites, task=task, release=release, streams=streams).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("poisson", [False, True], ids=["full", "poisson"])
@pytest.mark.parametrize("system", [False, True], ids=["seeded", "system"])
def test_noise_has_the_plans_standard_deviation(poisson: bool, system: bool) -> None:
    release = toy_release(poisson=poisson)
    expected = (
        release.noise_multiplier * release.clip_norm / (release.sampling_rate * release.public_size)
    )
    streams = [SystemStreams() if system else SeededStreams(3, r, "a") for r in range(400)]
    noise = noise_of(streams, poisson=poisson)
    assert noise.std() == pytest.approx(expected, rel=0.01)  # 400,000 numbers: sd 0.11 %
    assert abs(noise.mean()) < 4.5 * expected / noise.size**0.5


def test_noise_is_independent_between_classes_steps_sites_and_rounds() -> None:
    """Shared noise would cancel between two releases and leave the private sums bare."""
    names = ["a", "b", "aa"]
    rows = []
    for round_ in (1, 2):
        for steps in (1, 2):
            streams = [SeededStreams(5, round_, name) for name in names]
            rows.append(noise_of(streams, steps=steps).reshape(-1, 200))
    one, two = np.concatenate(rows[::2]), np.concatenate(rows[1::2])
    second = two - one  # the second step alone: at learning rate 1 without data, steps add up
    every = np.concatenate([one, second])
    correlations = np.corrcoef(every)[np.triu_indices(len(every), 1)]
    assert len(every) == 2 * 2 * len(names) * 5
    assert np.abs(correlations).max() < 5.2 / 200**0.5
    assert correlations.std() == pytest.approx(200**-0.5, rel=0.1)
    # and with a lag, as two generators at different places of one sequence would show
    flat = every.ravel()
    lagged = [np.corrcoef(flat[:-k], flat[k:])[0, 1] for k in (1, 2, 199, 200, 1000)]
    assert np.abs(lagged).max() < 5 / flat.size**0.5


def test_seeded_streams_are_reproducible_and_all_differ() -> None:
    """A key cut to 32 bits, as torch's manual_seed does, makes equal streams among 65,000."""
    keys = [(seed, r, site) for seed in (1, 2**40 + 1) for r in range(60) for site in "abc"]
    first = [tuple(SeededStreams(*key).normal((4,)).tolist()) for key in keys]
    again = [tuple(SeededStreams(*key).normal((4,)).tolist()) for key in keys]
    assert first == again
    assert len(set(first)) == len(keys)


def test_keys_that_differ_in_their_high_bits_give_other_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import hashlib

    class Digest:
        def __init__(self, data: bytes, digest_size: int) -> None:
            self.high = data.endswith(b"high")

        def digest(self) -> bytes:
            return (7 + (1 << 127) * self.high).to_bytes(16, "little")

    monkeypatch.setattr(hashlib, "blake2b", Digest)
    low, high = (SeededStreams(1, 1, name).normal((2000,)) for name in ("low", "high"))
    assert abs(float(torch.corrcoef(torch.stack([low, high]))[0, 1])) < 0.12
    other = stream(1, "x", 1, "low").random(3), stream(1, "x", 1, "high").random(3)
    assert not np.allclose(*other)


@pytest.mark.parametrize("kind", ["seeded", "system"])
def test_normal_numbers_are_normal(kind: str) -> None:
    streams = SystemStreams() if kind == "system" else SeededStreams(1, 1, "a")
    x = streams.normal((1000, 1001)).double().numpy()
    assert abs(x.mean()) < 5e-3
    assert x.var() == pytest.approx(1, abs=7e-3)
    assert (x**3).mean() == pytest.approx(0, abs=0.015)
    assert (x**4).mean() == pytest.approx(3, abs=0.06)
    for tail, share in ((1.0, 0.317311), (2.0, 0.045500), (3.0, 0.002700), (4.0, 6.334e-5)):
        found = (np.abs(x) > tail).mean()
        assert abs(found - share) < 5.5 * (share / x.size) ** 0.5
    halves = np.corrcoef(x.ravel()[: x.size // 2], x.ravel()[x.size // 2 :])[0, 1]
    assert abs(halves) < 5 / (x.size / 2) ** 0.5  # Box and Muller's two halves
    assert x.dtype == np.float64
    assert streams.normal((3,)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (5, 0)])
def test_any_shape_can_be_asked_for(shape: tuple[int, ...]) -> None:
    assert SystemStreams().normal(shape).shape == shape
    assert SeededStreams(1, 1, "a").normal(shape).shape == shape


def test_system_streams_never_repeat() -> None:
    first, second = SystemStreams(), SystemStreams()
    assert not torch.equal(first.normal((8,)), second.normal((8,)))
    assert not np.array_equal(first.batches.random(8), second.batches.random(8))


def test_batches_and_noise_come_from_different_streams() -> None:
    """Batches may become known, by timing for one; the noise must not be guessable from them."""
    streams = SeededStreams(1, 1, "a")
    batches = torch.from_numpy(streams.batches.standard_normal(4000))
    noise = streams.normal((4000,)).double()
    assert abs(float(torch.corrcoef(torch.stack([batches, noise]))[0, 1])) < 0.08


def test_more_sites_do_not_move_anyones_noise() -> None:
    one = noise_of([SeededStreams(1, 1, "a")])
    three = noise_of([SeededStreams(1, 1, n) for n in ("b", "a", "c")])
    assert np.array_equal(one[0], three[1])
