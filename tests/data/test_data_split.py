import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.data.arrays import digests_of
from fedtl.data.split import held_out, keep
from fedtl.errors import DataError


def digests(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


@given(st.integers(1, 60), st.integers(0, 40), st.randoms())
def test_adding_and_shuffling_rows_moves_nobody(n: int, more: int, random: object) -> None:
    old, new = digests(n), digests(more, 1)
    order = np.arange(n + more)
    random.shuffle(order)
    before = held_out(old, test_fraction=0.3)
    after = np.empty(n + more, dtype=bool)
    after[order] = held_out(np.concatenate([old, new])[order], test_fraction=0.3)
    assert np.array_equal(before, after[:n])


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=80))
def test_a_patient_never_straddles(groups: list[str]) -> None:
    test = held_out(digests(len(groups)), test_fraction=0.5, groups=groups)
    for group in set(groups):
        assert len({bool(t) for t, g in zip(test, groups, strict=True) if g == group}) == 1


def test_identical_pictures_never_straddle() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    twice = held_out(digests_of(np.concatenate([pixels, pixels])), test_fraction=0.5)
    assert np.array_equal(twice[:200], twice[200:])
    assert 60 < twice[:200].sum() < 140


def test_the_fraction_is_met_and_a_salt_changes_who() -> None:
    rows = digests(20_000)
    one, other = (held_out(rows, test_fraction=0.2, salt=salt) for salt in ("a", "b"))
    assert one.mean() == pytest.approx(0.2, abs=0.01)
    assert (one & other).mean() == pytest.approx(0.04, abs=0.01)
    assert not held_out(rows, test_fraction=0).any()


def test_larger_fractions_only_add_to_the_test_set() -> None:
    rows = digests(500)
    assert not (held_out(rows, test_fraction=0.2) & ~held_out(rows, test_fraction=0.4)).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="test_fraction"):
        held_out(digests(3), test_fraction=fraction)


def test_a_limit_keeps_the_share_of_test_rows_and_survives_growth() -> None:
    rows = digests(1000)
    test = held_out(rows, test_fraction=0.2)
    few = keep(rows, test, limit=80)
    assert (~test[few]).sum() == 80
    assert test[few].sum() == pytest.approx(80 * test.sum() / (~test).sum(), abs=1)
    assert set(few) <= set(keep(rows, test, limit=160))
    grown = np.concatenate([rows, digests(100, 1)])
    kept = keep(grown, held_out(grown, test_fraction=0.2), limit=80)
    assert len(set(few) & set(kept)) > 0.8 * len(few)


def test_a_limit_beyond_the_data_keeps_everything_and_zero_is_refused() -> None:
    rows = digests(10)
    test = np.arange(10) < 3
    assert np.array_equal(keep(rows, test, limit=99), np.arange(10))
    with pytest.raises(DataError, match="limit"):
        keep(rows, test, limit=-1)
