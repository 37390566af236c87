"""Robust rules: numbers checked by hand, slow and obvious copies, and where they break down."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.strategies.robust.bucketing import bucket_means
from fedtl.strategies.robust.bulyan import bulyan
from fedtl.strategies.robust.centred_clipping import centred_clip
from fedtl.strategies.robust.fltrust import trusted_mean
from fedtl.strategies.robust.krum import krum, krum_scores, most_bad, multikrum
from fedtl.strategies.robust.median import coordinate_median
from fedtl.strategies.robust.nnm import nearest_means
from fedtl.strategies.robust.norm_bounding import bounded_mean
from fedtl.strategies.robust.rfa import geometric_median
from fedtl.strategies.robust.trimmed_mean import trimmed_mean
from fedtl.strategies.updates import Matrix, squared_distances

FIVE = np.array([[1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [4.0, 0.0], [90.0, -90.0]])


def close(found: Matrix, expected: object, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, np.asarray(expected), atol=atol)


def test_of_the_middle_values() -> None:
    close(coordinate_median(FIVE), [2, 0])
    close(coordinate_median(FIVE[:4]), [2, 0])
    close(trimmed_mean(FIVE, 0.2), [8 / 3, 0])
    close(trimmed_mean(FIVE, 0.4), [2, 0])
    close(trimmed_mean(FIVE, 0.19), FIVE.mean(axis=0))
    values = np.arange(100.0)[:, None] ** 2
    close(trimmed_mean(values, 0.29), values[29:71].mean(axis=0))  # 0.29 * 100 < 29 in binary


def test_krum_by_hand() -> None:
    """Squared distances to the two closest others, f = 1: 1 + 2, 1 + 1, 1 + 2, 4 + 5, far."""
    close(krum_scores(squared_distances(FIVE), 1)[:4], [3, 2, 3, 9])
    close(krum(FIVE, 1), [2, 0])
    close(multikrum(FIVE, 1, 3), [5 / 3, 1 / 3])
    assert [most_bad(n) for n in (1, 4, 5, 6, 7)] == [0, 0, 1, 1, 2]


def test_bulyan_by_hand() -> None:
    """n = 7, f = 1: Krum takes five one by one, and the three closest to their median count.

    Squared distances to the n - f - 2 closest, of 0 1 2 3 4 9 30 (four): 2 wins with 10; of the
    others (three) 1 and 3 have 14, and 3 has the closer fourth; of 0 1 4 9 30 (two) 1 with 10; of
    0 4 9 30 (one) 0 and 4 have 16, and 4 the closer second; of 0 9 30 (one) so has 9. The median of
    1 2 3 4 9 is 3, and 2 3 4 are its closest. The five best at once are others.
    """
    values = np.array([0.0, 1, 2, 3, 4, 9, 30])[:, None]
    close(bulyan(values, 1), [3])
    at_once = values[np.argsort(krum_scores(squared_distances(values), 1), kind="stable")[:5]]
    assert sorted(at_once.ravel()) == [0, 1, 2, 3, 4]


def test_the_geometric_median_by_hand() -> None:
    """Of four points in convex position it is where the diagonals cross."""
    four = np.array([[0.0, 0.0], [2.0, 2.0], [2.0, 0.0], [0.0, 1.0]])
    close(geometric_median(four, iterations=1000), [2 / 3, 2 / 3], 1e-6)
    corner = np.array([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]])  # an angle above 120 degrees
    close(geometric_median(corner, iterations=1000), [0, 0], 1e-5)
    first = geometric_median(four, iterations=1)
    weights = 1 / np.linalg.norm(four - [2 / 3, 1 / 3], axis=1)  # from three closest to (1, 1/2)
    close(first, weights @ four / weights.sum())
    close(geometric_median(np.ones((3, 2))), [1, 1])


def test_far_updates_do_not_end_the_search_early() -> None:
    near = np.random.default_rng(3).normal(size=(7, 3))
    x = np.concatenate([near, np.full((5, 3), 1e12)])
    close(geometric_median(x), geometric_median(x, iterations=1000, tolerance=0.0), 1e-5)


def test_clipping_by_hand() -> None:
    two = np.array([[3.0, 4.0], [0.0, 1.0]])
    close(bounded_mean(two, 1.0), [0.3, 0.9])
    close(bounded_mean(two), bounded_mean(two, 3.0))  # the median length
    close(centred_clip(two, np.array([0.0, 1.0]), radius=np.sqrt(4.5)), [0.75, 1.75])
    twice = centred_clip(two, np.zeros(2), radius=1.0, iterations=2)
    close(twice, centred_clip(two, centred_clip(two, np.zeros(2), radius=1.0), radius=1.0))
    close(bounded_mean(np.zeros((3, 2)), 1.0), [0, 0])


def test_trust_by_hand() -> None:
    """Cosines 0.6 and 1; both at length 2; the one that goes against the server counts nothing."""
    found = trusted_mean(np.array([[3.0, 4.0], [9.0, 0.0], [-1.0, 5.0]]), np.array([2.0, 0.0]))
    close(found, 2 * (0.6 * np.array([0.6, 0.8]) + np.array([1.0, 0.0])) / 1.6)
    close(trusted_mean(np.array([[-1.0, 0.0], [0.0, 0.0]]), np.array([2.0, 0.0])), [0, 0])


def test_mixing_by_hand() -> None:
    close(nearest_means(FIVE, 2)[:2], [[5 / 3, 1 / 3], [5 / 3, 1 / 3]])
    close(nearest_means(FIVE, 0), np.tile(FIVE.mean(axis=0), (5, 1)))
    made = bucket_means(FIVE, 2, np.random.default_rng(3))
    order = np.random.default_rng(3).permutation(5)
    close(made, [FIVE[order[:2]].mean(axis=0), FIVE[order[2:4]].mean(axis=0), FIVE[order[4]]])


def slow_scores(x: Matrix, f: int) -> list[float]:
    n = len(x)
    found = []
    for i in range(n):
        away = sorted(float(np.sum((x[i] - x[j]) ** 2)) for j in range(n) if j != i)
        found.append(sum(away[: min(max(n - f - 2, 1), n - 1)]))
    return found


def slow_bulyan(x: Matrix, f: int) -> Matrix:
    left, chosen = list(x), []
    for _ in range(max(len(x) - 2 * f, 1)):
        scores = slow_scores(np.array(left), f)
        more = slow_scores(np.array(left), f - 1 if len(left) - f > 2 else f - 2)
        order = sorted(range(len(left)), key=lambda i: (round(scores[i], 12), more[i]))
        chosen.append(left.pop(order[0]))
    made = np.zeros(x.shape[1])
    for k in range(x.shape[1]):
        column = [c[k] for c in chosen]
        middle = float(np.median(column))
        made[k] = np.mean(sorted(column, key=lambda v: abs(v - middle))[: len(chosen) - 2 * f])
    return made


def slow_nearest(x: Matrix, f: int) -> Matrix:
    made = []
    for one in x:
        away = sorted(x, key=lambda other: float(np.sum((other - one) ** 2)))
        made.append(np.mean(away[: len(x) - f], axis=0))
    return np.array(made)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_fast_rules_equal_slow_ones(n: int, p: int, f: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, p))
    f = min(f, (n - 1) // 2)
    scores = slow_scores(x, f) if n > 1 else [0.0]
    close(krum_scores(squared_distances(x), f), scores)
    if n - f > 3:  # else two that are each other's closest tie
        close(krum(x, f), x[int(np.argmin(scores))])
    close(nearest_means(x, f), slow_nearest(x, f))
    middle = [float(np.median(column)) for column in x.T]
    close(coordinate_median(x), middle)
    cut = n * 3 // 10
    kept = [np.mean(sorted(column)[cut : n - cut]) for column in x.T]
    close(trimmed_mean(x, 0.3), kept)
    found = geometric_median(x)
    cost = np.linalg.norm(x - found, axis=1).sum()
    for other in (*x, x.mean(axis=0), coordinate_median(x)):
        assert cost <= np.linalg.norm(x - other, axis=1).sum() + 1e-5


@given(st.integers(0, 2), st.integers(0, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bulyan_equals_a_slow_one(f: int, more: int, p: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(4 * f + 3 + more, p))
    close(bulyan(x, f), slow_bulyan(x, f))


RULES: dict[str, tuple[Callable[[Matrix], Matrix], float]] = {
    "median": (coordinate_median, 0.5),
    "trimmed": (lambda x: trimmed_mean(x, 0.4), 0.4),
    "krum": (lambda x: krum(x, most_bad(len(x))), 0.43),
    "multikrum": (lambda x: multikrum(x, most_bad(len(x)), 3), 0.43),
    "bulyan": (lambda x: bulyan(x, most_bad(len(x), each=4)), 0.2),
    "rfa": (geometric_median, 0.5),
    "nnm": (lambda x: nearest_means(x, (len(x) - 1) // 2)[0], 0.5),
}
"""Rule to the share of bad updates below which it holds, of 21."""


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("far", [1e3, 1e12, 3e38])
def test_below_its_breakdown_point_nothing_moves_a_rule_far(name: str, far: float) -> None:
    """Good updates lie within 1 of (5, 5, 5); bad ones agree on a point anywhere."""
    rule, share = RULES[name]
    rng = np.random.default_rng(5)
    bad = int(np.ceil(21 * share)) - 1
    good = 5 + rng.uniform(-1, 1, (21 - bad, 3))
    for sign in (1, -1):
        found = rule(np.concatenate([good, np.full((bad, 3), sign * far)]))
        assert np.abs(found - 5).max() < 3, found


@pytest.mark.parametrize("name", RULES)
def test_above_it_bad_updates_have_their_way(name: str) -> None:
    """A test that finds every rule strong would prove nothing."""
    rule, _ = RULES[name]
    x = np.concatenate([5 + np.random.default_rng(5).uniform(-1, 1, (9, 3)), np.full((12, 3), 1e6)])
    assert rule(x if name != "nnm" else x[::-1]).max() > 1e5


def test_one_bad_update_moves_what_is_clipped_by_a_share_of_the_length() -> None:
    good = np.random.default_rng(1).normal(size=(9, 4))
    for far, sign in itertools.product((1e3, 3e38), (1, -1)):
        x = np.concatenate([good, np.full((1, 4), sign * far)])
        length = float(np.median(np.linalg.norm(x, axis=1)))
        for rule in (bounded_mean, lambda x: centred_clip(x, np.zeros(4))):
            without = rule(np.concatenate([good, np.zeros((1, 4))]))
            assert np.linalg.norm(rule(x) - without) <= 1.01 * length / 10 + 0.2
        own = good.mean(axis=0)
        assert np.linalg.norm(trusted_mean(x, own)) <= np.linalg.norm(own) * (1 + 1e-9)


@pytest.mark.parametrize("name", [n for n in RULES if n != "nnm"])
def test_rules_go_where_all_updates_go(name: str) -> None:
    """Moved and scaled updates give the moved and scaled result; equal ones give themselves."""
    rule, _ = RULES[name]
    x = np.random.default_rng(2).normal(size=(11, 4))
    close(rule(3 * x + 7), 3 * rule(x) + 7, 1e-6)
    close(rule(np.tile(x[0], (11, 1))), x[0])
