"""Intervals and tests of a study: right by other books, and silent where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from studies import invented

from fedtl.report.study_stats import (
    Mean,
    detectable,
    holm,
    paired_t,
    power_note,
    signed_rank,
    table_of,
)


def test_holm_is_what_others_compute() -> None:
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") and p.adjust(c(0.6, 0.01), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.6, 0.01]) == pytest.approx([0.6, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 5, 9, 14])
def test_paired_tests_are_scipys(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert paired_t(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    exact = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank(differences) == pytest.approx(exact)


def test_ties_and_zeros_are_exact() -> None:
    # all 2^4 signs of the ranks 1.5 1.5 3 4: the smaller sum is at most 1.5 in 3 of 16 ways a side
    assert signed_rank([0.1, -0.1, 0.2, 0.3]) == pytest.approx(2 * 3 / 16)
    assert signed_rank([0.0, 0.1, -0.1, 0.2, 0.3]) == signed_rank([0.1, -0.1, 0.2, 0.3])
    # shares of the same number of examples that differ by rounding only
    assert signed_rank([0.3 - 0.2, 0.1 - 0.2, 0.2, 0.3]) == signed_rank([0.1, -0.1, 0.2, 0.3])


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    found = [Mean.of(random.normal(size=4).tolist()) for _ in range(2000)]
    covered = np.mean(
        [m is not None and m.half is not None and abs(m.mean) < m.half for m in found]
    )
    assert abs(covered - 0.95) < 0.02


def test_nothing_is_claimed_without_spread() -> None:
    assert paired_t([0.1, 0.1, 0.1]) is None
    assert paired_t([0.0, 0.0]) == signed_rank([0.0, 0.0]) == 1.0
    assert paired_t([0.5]) is None
    assert signed_rank([0.5]) is None


def test_one_seed_has_no_p_value_and_no_interval() -> None:
    rows = table_of(invented(seeds=(7,)))
    assert all(row.accuracy is not None and row.accuracy.half is None for row in rows)
    tests = [row.versus for row in rows if row.versus]
    assert len(tests) == 4
    assert {(v.p_t, v.p_wilcoxon, v.p_holm, v.difference.half) for v in tests} == {(None,) * 4}
    assert power_note(1, 0).startswith("One seed tells nothing")


def test_rows_are_compared_with_the_baseline_of_their_own_setting() -> None:
    result = invented()
    rows = table_of(result)
    assert [(row.group, row.label) for row in rows] == [
        ((f"alpha {alpha}",), label)
        for alpha in ("0.1", "1")
        for label in ("fedavg", "fedadam", "fed3r")
    ]
    cells = {(c.labels["partition"], c.labels["strategy"], c.seed): c for c in result.cells}

    def last(partition: str, label: str, seed: int) -> float:
        found = cells[(partition, label, seed)].last
        assert found is not None
        assert found.accuracy is not None
        return found.accuracy

    expected = [last("alpha 1", "fedadam", s) - last("alpha 1", "fedavg", s) for s in range(1, 6)]
    versus = rows[4].versus
    assert versus is not None
    assert versus.difference.mean == pytest.approx(np.mean(expected))
    assert versus.p_t == pytest.approx(stats.ttest_1samp(expected, 0).pvalue)
    raw = [row.versus.p_t or 0.0 for row in rows if row.versus]
    assert [row.versus.p_holm for row in rows if row.versus] == pytest.approx(holm(raw))


def test_only_seeds_that_both_have_are_paired() -> None:
    result = invented(partitions=(0.1,))
    cells = tuple(
        c
        for c in result.cells
        if (c.labels["strategy"], c.seed) not in {("fedavg", 1), ("fed3r", 2)}
    )
    object.__setattr__(result, "cells", cells)
    versus = {row.label: row.versus for row in table_of(result)}
    assert versus["fed3r"] is not None
    assert versus["fed3r"].difference.n == 3
    assert versus["fedadam"] is not None
    assert versus["fedadam"].difference.n == 4


def test_the_power_that_is_told_is_the_power_there_is() -> None:
    random = np.random.default_rng(2)
    size = detectable(5)
    found = [(paired_t(random.normal(size, 1, 5).tolist()) or 1.0) < 0.05 for _ in range(1500)]
    assert abs(np.mean(found) - 0.8) < 0.04
    assert "power is low" in power_note(3, 4)
    assert "p = 0.25" in power_note(3, 4)
    assert "power is low" not in power_note(10, 1)
