"""Shares, graph and fixed point, each against something obvious."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg import FixedPoint
from fedtl.privacy.secagg.graph import degree, neighbourhoods
from fedtl.privacy.secagg.masks import add_mask
from fedtl.privacy.secagg.session import Session
from fedtl.privacy.secagg.shamir import PRIME, combine, split


def test_the_field_is_one() -> None:
    """Miller and Rabin's test, with forty bases."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        value = pow(base, odd, PRIME)
        seen = [value] + [value := value * value % PRIME for _ in range(twos - 1)]
        assert seen[0] == 1 or PRIME - 1 in seen


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(range(32))])
def test_any_threshold_of_shares_gives_the_secret_back(secret: bytes) -> None:
    shares = dict(enumerate(split(secret, 3, 5), 1))
    for chosen in combinations(shares, 3):
        assert combine({at: shares[at] for at in chosen}) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """For two of three shares and any secret there is a third share, so the two say nothing."""
    first, second, _ = (int.from_bytes(s) for s in split(b"s" * 32, 3, 3))
    for secret in (0, 1, 2**256 - 1):
        # f(0) - 3 f(1) + 3 f(2) - f(3) = 0 for every polynomial of degree 2
        third = (secret - 3 * first + 3 * second) % PRIME
        parts = {at: v.to_bytes(33) for at, v in enumerate((first, second, third), 1)}
        assert combine(parts) == secret.to_bytes(32)


def test_a_share_is_new_every_time_and_its_last_bits_uniform() -> None:
    low = [split(bytes(32), 2, 2)[1][-1] for _ in range(4000)]
    counts = np.bincount(np.asarray(low) % 16, minlength=16)
    assert float(((counts - 250) ** 2 / 250).sum()) < 15 + 6 * 30**0.5


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_threshold_beyond_the_shares_is_refused(threshold: int) -> None:
    with pytest.raises(PrivacyError, match=f"threshold = {threshold} of 3 shares"):
        split(bytes(32), threshold, 3)


def test_shares_that_fit_no_secret_are_refused() -> None:
    with pytest.raises(PrivacyError) as caught:
        combine({1: b"\xff" * 33, 2: b"\x00" * 33})
    assert caught.value.code == "secagg.share"


@given(st.integers(2, 150), st.binary(min_size=4, max_size=4))
def test_links_go_both_ways_and_everyone_has_as_many(n: int, seed: bytes) -> None:
    names = [f"s{at}" for at in range(n)]
    around = neighbourhoods(names, seed)
    assert {len(v) for v in around.values()} == {degree(n) + 1}
    assert all(name in around[other] for name in names for other in around[name])


def test_the_graph_is_another_one_for_other_keys() -> None:
    names = [f"s{at}" for at in range(100)]
    assert neighbourhoods(names, b"a") != neighbourhoods(names, b"b")


def test_everyone_is_a_neighbour_up_to_47_sites() -> None:
    assert [n for n in range(2, 200) if degree(n) == n - 1] == list(range(2, 48))


@pytest.mark.parametrize("n", [48, 100, 1000, 10_000])
def test_the_promised_odds_of_the_graph(n: int) -> None:
    size = degree(n) + 1
    least = Session("1", 1, 1, n, 2 / 3, 1.0).least(size)
    colluders = n * hypergeom.sf(least - 1, n - 1, int(0.3 * n), size - 1)
    dropouts = n * hypergeom.sf(size - least, n, int(0.1 * n), size)
    liars = n * hypergeom.sf(2 * least - size - 1, n - 1, int(0.1 * n), size - 1)
    assert colluders < 1e-8
    assert dropouts < 1e-6
    assert liars < 1e-6


@given(
    st.integers(2, 200),
    st.floats(1e-6, 1e12),
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
)
def test_fixed_point_errs_by_half_a_step_for_each_site(
    sites: int, bound: float, shares: list[float]
) -> None:
    codec = FixedPoint(bound, sites)
    values = np.asarray(shares) * bound
    total = np.zeros(len(values), np.uint64)
    for _ in range(sites):
        total += codec.encode(values)
    exact = np.asarray([math.fsum([v] * sites) for v in values])
    rounding = np.abs(exact) * 2.0**-52
    assert (np.abs(codec.decode(total) - exact) <= codec.error() + rounding).all()


@given(st.integers(2, 10_000), st.floats(1e-9, 1e15))
def test_the_largest_sum_fits_and_the_step_is_no_larger_than_needed(
    sites: int, bound: float
) -> None:
    codec = FixedPoint(bound, sites)
    largest = int(codec.encode(np.asarray([bound]))[0])
    assert sites * largest < 2**63
    assert sites * bound / codec.step > 2**61 - sites


def test_no_overflow_at_a_hundred_thousand_examples_and_for_gram_sums() -> None:
    """100 sites of 100,000 examples: weighted heads up to 2^16, and sums of squares of features."""
    heads = FixedPoint(2.0**36, 100)
    x = np.asarray([2.0**16, -(2.0**16), 0.125, 3.14159])
    total = np.zeros(4, np.uint64)
    for _ in range(100):
        total += heads.encode(100_000.0 * x)
    np.testing.assert_allclose(heads.decode(total) / 1e7, x, rtol=0, atol=heads.error() / 1e7)
    assert heads.error() / 1e7 < 1e-11
    grams = FixedPoint(2.0**24, 100)
    assert grams.decode(grams.encode(np.asarray([1.01e5])) * np.uint64(100))[0] == pytest.approx(
        1.01e7, abs=grams.error()
    )
    assert grams.error() < 1e-7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -100.001])
def test_what_is_out_of_range_is_refused_and_counted(bad: float) -> None:
    with pytest.raises(PrivacyError, match="2 of 4 values are not finite or beyond 100") as caught:
        FixedPoint(100.0, 3).encode(np.asarray([1.0, bad, bad, 100.0]))
    assert caught.value.code == "secagg.range"


def test_a_mask_does_not_depend_on_how_it_is_cut_and_cancels() -> None:
    whole = np.zeros(50_000, np.uint64)
    add_mask(whole, b"k" * 32)
    short = np.zeros(20_000, np.uint64)
    add_mask(short, b"k" * 32)
    np.testing.assert_array_equal(whole[:20_000], short)
    assert len(np.unique(whole)) == 50_000
    add_mask(whole, b"k" * 32, sign=-1)
    assert not whole.any()
