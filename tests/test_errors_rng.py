"""Errors that name a cure, values that more than one layer speaks of, and named random streams."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl import errors
from fedtl.errors import FedtlError, SiteFailure, nearest
from fedtl.rng import stream
from fedtl.types import Evaluation

KINDS = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FedtlError)
]


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    codes = {cls("x").code for cls in KINDS}
    assert len(codes) == len(KINDS) == 9


def test_an_error_reads_as_one_paragraph() -> None:
    error = FedtlError("The folder 'x' is empty.", next_step="Name another.", code="data.empty")
    assert str(error) == "The folder 'x' is empty. Name another."
    assert (error.code, error.exit_code) == ("data.empty", 2)
    assert SiteFailure("data.empty") == SiteFailure(error.code)


def test_the_nearest_name_comes_first_and_long_lists_end() -> None:
    assert nearest("fedavgg", ["krum", "fedavg"]) == "Did you mean 'fedavg'? Known: fedavg, krum."
    assert nearest("zzz", ["krum"]) == "Known: krum."
    assert nearest("n7", [f"n{i}" for i in range(30)]).endswith("and 10 more.")


def test_accuracy_is_the_diagonals_share() -> None:
    found = Evaluation(1, 3, 2.0, np.array([[2.0, 1.0], [0.0, 1.0]]))
    assert (found.accuracy, found.loss, found.n, found.weight) == (0.75, 0.5, 4, 4)
    nothing = Evaluation(0, 0, 0.0)
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.loss)
    assert not nothing.measured


def test_ratios_of_noised_counts_stay_in_their_range() -> None:
    for wrong, right, accuracy in (
        (-3.5, 4.0, 1.0),
        (4.0, -3.5, 0.0),
        (-2.0, -1.0, math.nan),
        (0.2, 0.3, 0.6),
    ):
        noised = Evaluation(wrong, right, -1.0, releases=1)
        assert noised.weight >= 1
        assert noised.measured
        assert noised.loss == 0
        assert noised.accuracy == pytest.approx(accuracy, nan_ok=True)


keys = st.tuples(
    st.integers(0, 2**70), st.text(max_size=5), st.integers(0, 10**9), st.text(max_size=5)
)


@given(keys, keys)
def test_streams_are_told_apart_by_all_of_their_key(
    one: tuple[int, str, int, str], two: tuple[int, str, int, str]
) -> None:
    first, second = stream(*one).integers(0, 2**63, 4), stream(*two).integers(0, 2**63, 4)
    assert np.array_equal(first, second) == (one == two)
    assert np.array_equal(first, stream(*one).integers(0, 2**63, 4))


def test_streams_never_change_between_versions() -> None:
    """Typed in: a run of last year must give its head again."""
    assert stream(1, "cohort", 3, "site-a").integers(0, 1000, 5).tolist() == VECTOR


VECTOR = [540, 16, 15, 185, 816]


@pytest.mark.parametrize(
    "neighbour", [(2, "noise", 1, "a"), (1, "noise", 2, "a"), (1, "noise", 1, "b")]
)
def test_neighbouring_streams_are_uncorrelated(neighbour: tuple[int, str, int, str]) -> None:
    a, b = stream(1, "noise", 1, "a").normal(size=20000), stream(*neighbour).normal(size=20000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / 20000**0.5
