"""Heads in closed form are the pooled solution, for any split, and stand whatever sites have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fedtl.strategies import make_strategy
from fedtl.strategies.closed import ClosedForm
from fedtl.strategies.fedcof import FedCOF
from fedtl.train.additive import statistics
from fedtl.train.classes import Noise, read_classes
from fedtl.train.closed_form import centroid_head, discriminant_head, preconditioner
from fedtl.train.fit import Examples
from fedtl.train.ridge import add, ridge_head, unpack

ADDITIVE = {
    "fed3r": {"normalise": True},
    "fedncm": {},
    "fedlda": {},
    "fedlda naive": {"naive": True},
    "fedpft": {"samples": 80},
}
EVERY = {**ADDITIVE, "fedcof": {}}


def made(name: str) -> ClosedForm:
    strategy = make_strategy(name.split()[0], EVERY[name])
    assert isinstance(strategy, ClosedForm)
    return strategy


def examples(n: int, seed: int, *, d: int = 7, classes: int = 4, apart: float = 1.0) -> Examples:
    """Unit features around class centres, and the bias."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(5).normal(size=(classes, d))
    y = rng.integers(0, classes, n)
    x = apart * centres[y] + rng.normal(size=(n, d)) + 0.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.column_stack([x, np.full(n, 0.1)]).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(y))


def rows(data: Examples, at: np.ndarray) -> Examples:
    chosen = torch.from_numpy(np.asarray(at, np.int64))
    return Examples.of(data.x[chosen], data.y[chosen])


def sums(
    data: Examples, sites: Sequence[np.ndarray], classes: int = 4
) -> list[dict[str, np.ndarray]]:
    return [statistics(rows(data, at), classes) for at in sites]


@pytest.mark.parametrize("name", ADDITIVE)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), sites=st.integers(1, 8), n=st.integers(30, 90))
def test_any_split_in_any_order_gives_the_pooled_head(
    name: str, seed: int, sites: int, n: int
) -> None:
    data, rng = examples(n, seed), np.random.default_rng(seed)
    owner = rng.integers(0, sites, n)  # sites may be empty
    parts = sums(data, [np.flatnonzero(owner == s) for s in range(sites)])
    rng.shuffle(parts)  # type: ignore[arg-type]
    pooled = made(name).solve([statistics(data, 4)])
    scale = np.abs(pooled).max()
    np.testing.assert_allclose(made(name).solve(parts), pooled, atol=1e-8 * scale, rtol=0)


@pytest.mark.parametrize("name", ADDITIVE)
def test_label_skew_changes_nothing(name: str) -> None:
    data = examples(200, 3)
    mixed = sums(data, np.array_split(np.arange(200), 4))
    skewed = sums(data, [np.flatnonzero(data.y.numpy() == c) for c in range(4)])
    expected = made(name).solve(mixed)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(made(name).solve(skewed), expected, atol=1e-8 * scale, rtol=0)


@pytest.mark.parametrize("shrinkage", [0.0, 0.05, 0.5])
def test_the_discriminant_is_scikit_learns(shrinkage: float) -> None:
    """The same probabilities, from a solver that sees the examples."""
    data = examples(300, 1)
    x, y = data.x.double().numpy(), data.y.numpy()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x[:, :-1], y)
    head = discriminant_head(read_classes(statistics(data, 4)), shrinkage=shrinkage)
    ours = torch.softmax(torch.from_numpy(x @ head.T), 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x[:, :-1]), atol=1e-9)


def test_nearest_means_by_hand() -> None:
    x = torch.tensor([[3.0, 0, 0.1], [1, 0, 0.1], [0, 2, 0.1], [3, 4, 0.1]], dtype=torch.float64)
    data = Examples(x, torch.tensor([0, 0, 1, 2]), x.norm(dim=1))
    head = centroid_head(read_classes(statistics(data, 3)))
    np.testing.assert_allclose(head, [[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], atol=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 3.0])
def test_afls_aggregation_law_gives_the_ridge_head(gamma: float) -> None:
    """Pair by pair as AFL writes it; without its regulariser, ordinary least squares."""
    data = examples(90, 4)
    parts = sums(data, np.array_split(np.arange(90), 3))
    eye = np.eye(8)
    cs = [unpack(p["gram"]) + gamma * eye for p in parts]
    ws = [np.linalg.solve(c, p["moment"]) for c, p in zip(cs, parts, strict=True)]
    c, w = cs[0], ws[0]
    for c_new, w_new in zip(cs[1:], ws[1:], strict=True):
        r, r_new, both = np.linalg.inv(c), np.linalg.inv(c_new), np.linalg.inv(c + c_new)
        w = (eye - r @ c_new + r @ c_new @ both @ c_new) @ w + (
            eye - r_new @ c + r_new @ c @ both @ c
        ) @ w_new
        c = c + c_new
    np.testing.assert_allclose(ridge_head(add(parts), ridge=3 * gamma), w.T, atol=1e-10)
    plain = w + 3 * gamma * np.linalg.solve(c - 3 * gamma * eye, w)
    x, y = data.x.double().numpy(), np.eye(4)[data.y.numpy()]
    np.testing.assert_allclose(plain, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-8)
    np.testing.assert_allclose(ridge_head(add(parts), ridge=1e-12).T, plain, atol=1e-7)


# ------------------------------------------------------------------------------------------ FedCOF
def test_covariances_from_means_are_those_of_the_classes() -> None:
    """Unbiased where sites draw alike: with many sites the head is that of the true scatter."""
    data = examples(24_000, 1, d=4)
    parts = sums(data, np.array_split(np.arange(24_000), 1500))
    strategy = FedCOF(shrinkage=0.01)
    read = read_classes(add(parts))
    truth = read.within()
    expected = read.means @ np.linalg.inv(truth + 0.01 * np.trace(truth) / 4 * np.eye(4))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got, means = strategy.solve(parts)[:, :-1], centroid_head(read)[:, :-1]
    off, far = (float(np.abs(head - expected).max()) for head in (got, means))
    assert off < 0.04
    assert far > 4 * off  # class means alone are not that head


def test_with_one_site_there_is_no_spread_of_means_and_fedcof_is_fedncm() -> None:
    one = [statistics(examples(60, 2), 4)]
    np.testing.assert_allclose(made("fedcof").solve(one), made("fedncm").solve(one), atol=1e-12)


def test_fedcof_does_not_ask_who_came_first_but_who_has_what() -> None:
    data = examples(300, 2)
    parts = sums(data, np.array_split(np.arange(300), 10))
    strategy = made("fedcof")
    np.testing.assert_allclose(strategy.solve(parts[::-1]), strategy.solve(parts), atol=1e-12)
    merged = [add(list(pair)) for pair in zip(parts[::2], parts[1::2], strict=True)]
    assert np.abs(strategy.solve(merged) - strategy.solve(parts)).max() > 1e-3


# ---------------------------------------------------------------------------- what sites may have
def scores(head: np.ndarray, data: Examples) -> np.ndarray:
    return np.asarray(data.x.double().numpy() @ head.T)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"fed3r"}))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), missing=st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_a_class_that_nobody_has_is_never_answered(name: str, seed: int, missing: set[int]) -> None:
    data = examples(80, seed, classes=6)
    data = rows(data, np.flatnonzero(~np.isin(data.y.numpy(), list(missing))))
    parts = [statistics(rows(data, np.arange(at, len(data), 2)), 6) for at in range(2)]
    answered = scores(made(name).solve(parts), examples(200, seed + 1, classes=6)).argmax(1)
    assert not set(answered) & missing


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "case", ["one example each", "more features than examples", "equal", "none"]
)
def test_poor_data_give_a_finite_head(name: str, case: str) -> None:
    data = {
        "one example each": lambda: rows(
            examples(60, 1), np.array([examples(60, 1).y.tolist().index(c) for c in range(4)])
        ),
        "more features than examples": lambda: examples(12, 1, d=40),
        "equal": lambda: rows(examples(9, 1), np.zeros(9)),
        "none": lambda: rows(examples(9, 1), np.zeros(0)),
    }[case]()
    head = made(name).solve(sums(data, np.array_split(np.arange(len(data)), 2)))
    assert head.shape == (4, data.x.shape[1])
    assert np.isfinite(head).all()
    if case == "one example each":
        assert (scores(head, data).argmax(1) == data.y.numpy()).all()


# ------------------------------------------------------------------------------------------ DP-FC
def loss(head: np.ndarray, data: Examples) -> float:
    z = torch.from_numpy(scores(head, data))
    return float(torch.nn.functional.cross_entropy(z, data.y))


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_preconditioned_steps_of_size_two_never_raise_the_loss(seed: int) -> None:
    data = examples(100, seed)
    x, y = data.x.double().numpy(), np.eye(4)[data.y.numpy()]
    inverse = preconditioner(x.T @ x, 100.0, damping=1e-6)
    head, losses = np.zeros((4, 8)), []
    for _ in range(12):
        losses.append(loss(head, data))
        p = torch.softmax(torch.from_numpy(x @ head.T), 1).numpy()
        head = head - 2 * (p - y).T @ x / 100 @ inverse
    assert all(after < before for before, after in pairwise(losses))
    assert losses[6] < 0.9 * losses[0]


def test_the_preconditioner_inverts_the_positive_part_and_damps_by_the_noise() -> None:
    gram = np.diag([8.0, 2.0, -4.0])
    quiet = preconditioner(gram, 2.0, damping=1.0, noise=Noise(gram=1e-9, moment=1.0))
    np.testing.assert_allclose(quiet, np.diag([1 / 5, 1 / 2, 1]), atol=1e-12)
    plain = preconditioner(abs(gram), 2.0, damping=1.0)
    np.testing.assert_allclose(plain, np.diag([1 / 5, 1 / 2, 1 / 3]), atol=1e-12)
    noised = preconditioner(gram, 2.0, damping=1.0, noise=Noise(gram=4.0, moment=1.0))
    radius = 4 * 6**0.5 / 2
    np.testing.assert_allclose(noised, np.diag([1 / (4 + radius), 1 / (1 + radius), 1 / radius]))
