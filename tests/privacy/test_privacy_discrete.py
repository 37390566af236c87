"""The discrete Gaussian: exact where that can be counted, and Gaussian where it is wide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from fedtl.errors import PrivacyError
from fedtl.privacy.discrete import discrete_gaussian
from fedtl.train.streams import SeededStreams, SystemStreams


def words(seed: int):  # type: ignore[no-untyped-def]
    return SeededStreams(seed, 1, "site").words


def chi2_of(numbers: NDArray[np.int64], deviation: int) -> tuple[float, int]:
    """Return chi-square against the exact probabilities, tails together, and its freedoms."""
    edge = 4 * deviation
    x = np.arange(-40 * deviation, 40 * deviation + 1)
    weight = np.exp(-(x.astype(float) ** 2) / (2 * deviation**2))
    p = weight / weight.sum()
    inside = np.abs(x) <= edge
    expected = len(numbers) * np.append(p[inside], p[~inside].sum())
    counts = np.bincount(numbers[np.abs(numbers) <= edge] + edge, minlength=2 * edge + 1)
    counts = np.append(counts, int((np.abs(numbers) > edge).sum()))
    keep = expected > 5
    chi2 = ((counts[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    return float(chi2), int(keep.sum()) - 1


@pytest.mark.parametrize("deviation", [1, 2, 3, 10])
def test_small_deviations_have_the_exact_probabilities(deviation: int) -> None:
    chi2, freedoms = chi2_of(discrete_gaussian(deviation, 200_000, words(deviation)), deviation)
    assert chi2 < freedoms + 5 * math.sqrt(2 * freedoms)


@pytest.mark.parametrize("deviation", [1 << 12, 10**9, (1 << 56) - 12345])
def test_wide_ones_are_gaussian(deviation: int) -> None:
    numbers = discrete_gaussian(deviation, 50_000, words(7)) / deviation
    assert kstest(numbers, norm.cdf).pvalue > 1e-3
    assert numbers.std() == pytest.approx(1, abs=5 / math.sqrt(2 * 50_000))


def test_the_last_digits_are_uniform() -> None:
    """They would not be if a floating-point number had been rounded."""
    numbers = discrete_gaussian(10**15, 40_000, words(3))
    counts = np.bincount(numbers % 16, minlength=16)
    assert float(((counts - 2500) ** 2 / 2500).sum()) < 15 + 5 * math.sqrt(30)


def test_shares_add_up_to_the_whole_variance() -> None:
    total = sum(discrete_gaussian(4000, 20_000, words(at)) for at in range(7))
    assert kstest(total / (4000 * math.sqrt(7)), norm.cdf).pvalue > 1e-3


def test_a_seed_gives_the_same_noise_and_the_system_another_one_every_time() -> None:
    first, again = (discrete_gaussian(5000, 50, words(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, discrete_gaussian(5000, 50, words(6)))
    one, other = (discrete_gaussian(10**9, 50, SystemStreams().words) for _ in range(2))
    assert len(np.intersect1d(one, other)) == 0


@pytest.mark.parametrize("deviation", [0, -1, (1 << 56) + 1])
def test_a_deviation_out_of_range_is_refused(deviation: int) -> None:
    with pytest.raises(PrivacyError) as caught:
        discrete_gaussian(deviation, 3, words(1))
    assert caught.value.code == "privacy.step"
