"""Arrays to whole numbers and back: the promised error, and never less noise than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol import session

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg import FixedPoint, Session, SharedNoise, decode, encode
from fedtl.privacy.secagg.masks import Words
from fedtl.train.streams import SeededStreams


def of(n: int, bound: float = 4096.0, *, additive: bool = False) -> Session:
    return session(n, bound=bound, additive=additive)


def summed(vectors: list[Words]) -> Words:
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 12),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    additive=st.booleans(),
    size=st.floats(1e-6, 1.0),
    seed=st.integers(0, 99),
)
def test_a_mean_or_sum_comes_back_within_the_stated_error(
    n: int, shape: tuple[int, int], additive: bool, size: float, seed: int
) -> None:
    rng, this = np.random.default_rng(seed), of(n, additive=additive)
    weights = rng.integers(1, 50, n).astype(float)
    arrays = [
        {"b": rng.normal(size=shape) * size, "a": rng.normal(size=3) * size} for _ in range(n)
    ]
    vectors = [encode(a, w, this) for a, w in zip(arrays, weights, strict=True)]
    back, weight = decode(summed(vectors), {"a": (3,), "b": shape}, this)
    error = FixedPoint(this.bound, n).error()
    assert weight == pytest.approx(weights.sum(), abs=error)
    for name in ("a", "b"):
        values = [a[name] * (1 if additive else w) for a, w in zip(arrays, weights, strict=True)]
        expected = np.sum(values, axis=0) / (1 if additive else weights.sum())
        scale = 1 if additive else weights.sum()
        arithmetic = 1e-14  # of float64, in computing what is expected
        assert np.abs(back[name] - expected).max() <= 3 * error / scale + arithmetic


def test_a_hundred_thousand_examples_a_site_do_not_overflow() -> None:
    """With a modulus of 2^32 the sums of ten such sites would wrap around."""
    this = of(10, 2.0**32)
    head = {"weight": np.full((3, 4), 1000.0)}
    back, weight = decode(
        summed([encode(head, 1e5, this) for _ in range(10)]), {"weight": (3, 4)}, this
    )
    np.testing.assert_allclose(back["weight"], 1000.0, rtol=1e-9)
    assert weight == 1e6


@pytest.mark.parametrize("bad", [math.nan, math.inf, 5000.0])
def test_values_beyond_the_bound_are_refused(bad: float) -> None:
    with pytest.raises(PrivacyError, match="not finite or beyond") as error:
        encode({"w": np.array([1.0, bad])}, 1.0, of(4))
    assert error.value.code == "secagg.range"
    assert error.value.next_step


@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_sum_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PrivacyError, match="entries, not 2") as error:
        decode(np.zeros(length, np.uint64), {"w": (1,)}, of(4))
    assert error.value.code == "secagg.length"


def test_weights_that_add_up_to_nothing_are_refused() -> None:
    with pytest.raises(PrivacyError, match="add up to 0"):
        decode(np.zeros(2, np.uint64), {"w": (1,)}, of(4))


def noise(deviation: object, honest: int, seed: int = 1, z: float = 2.0) -> SharedNoise:
    streams = SeededStreams(seed, 1, "a")
    return SharedNoise({"w": deviation}, z, honest, streams.words)  # type: ignore[dict-item]


def test_a_site_adds_its_share_to_every_entry_and_none_to_its_weight() -> None:
    this, wide = of(8), np.repeat([0.01, 0.03], 20_000)
    vector = encode({"w": np.zeros(40_000)}, 1.0, this, noise(wide, 4))
    fixed = FixedPoint(this.bound, 8)
    values = fixed.decode(vector)
    for part, deviation in zip(np.split(values[:-1], 2), (0.01, 0.03), strict=True):
        assert part.std() == pytest.approx(deviation / 2, rel=0.02)
        assert abs(part.mean()) < 4 * deviation / 2 / 20_000**0.5
    assert values[-1] == 1.0


def test_what_rounding_costs_is_paid_for_with_noise() -> None:
    """A coarse step moves neighbouring vectors apart; the noise must grow, not stay."""
    m = 50_000
    deviations = []
    for bound in (2.0**12, 2.0**43):
        this = of(4, bound)
        step = FixedPoint(bound, 4).step
        deviation = 3000 * FixedPoint(2.0**43, 4).step
        vector = encode({"w": np.zeros(m)}, 1.0, this, noise(deviation, 1))
        deviations.append(FixedPoint(bound, 4).decode(vector)[:-1].std() / deviation)
        promised = 1 + 2.0 * math.sqrt(m) * step / deviation
        assert deviations[-1] == pytest.approx(promised, rel=0.01)
    assert deviations[1] > 1.1 * deviations[0]


def test_noise_that_whole_numbers_cannot_carry_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"steps of .*, less than 1024") as error:
        encode({"w": np.zeros(2)}, 1.0, of(4), noise(1e-16, 2))
    assert error.value.code == "privacy.step"
    with pytest.raises(PrivacyError, match="does not fit in a session") as error:
        encode({"w": np.zeros(2)}, 1.0, of(4), noise(1e4, 2))
    assert error.value.code == "secagg.range"


def test_noise_is_another_in_every_round_and_at_every_site() -> None:
    this = of(4)

    def drawn(round_: int, site: str) -> np.ndarray:
        streams = SeededStreams(1, round_, site)
        shared = SharedNoise({"w": 1.0}, 2.0, 1, streams.words)
        return FixedPoint(this.bound, 4).decode(encode({"w": np.zeros(5000)}, 1.0, this, shared))

    first = drawn(1, "a")[:-1]
    for other in (drawn(2, "a")[:-1], drawn(1, "b")[:-1]):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.06
