"""Counts of a site's examples: right in clear, bounded and noised under a plan."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss
from toys import WIDTH, toy_examples, toy_release

from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.train.batches import Examples
from fedtl.train.counts import (
    LABELS_NORM,
    METRICS_NORM,
    STEP,
    evaluate,
    label_counts,
    loss_bound,
    metrics_vector,
)
from fedtl.train.heads import initial_head, logits
from fedtl.train.streams import SeededStreams, Streams, SystemStreams

KINDS = ("linear", "mlp")


def metrics(noise: float = 2.0, **changes: object) -> Release:
    values = {"mechanism": "metrics", "clip_norm": METRICS_NORM, "noise_multiplier": noise}
    return toy_release(9, **(values | {"public_size": 1.0} | changes))


def labels(noise: float = 2.0, **changes: object) -> Release:
    return metrics(noise, **({"mechanism": "labels", "clip_norm": LABELS_NORM} | changes))


def steep(seed: int, size: float = 30.0) -> dict[str, np.ndarray]:
    """Return a head whose losses go beyond any bound."""
    rng = np.random.default_rng(seed)
    return {"weight": (size * rng.normal(size=(3, WIDTH))).astype(np.float32)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 15, 5000])
def test_evaluation_equals_scikit_learns(kind: str, n: int) -> None:
    examples, head = toy_examples(n, 1), initial_head(kind, WIDTH, 3, seed=4)
    for value in head.values():
        value += np.sin(np.arange(value.size, dtype=np.float32)).reshape(value.shape) / 5
    result = evaluate(head, examples, 3)
    probabilities = torch.softmax(logits(head, examples.x).double(), 1).numpy()
    y = examples.y.numpy()
    expected = confusion_matrix(y, probabilities.argmax(1), labels=range(3))
    assert np.array_equal(result.confusion, expected)
    assert result.n == n
    assert result.accuracy == pytest.approx((probabilities.argmax(1) == y).mean())
    loss = log_loss(y, probabilities, labels=range(3))
    assert result.loss == pytest.approx(loss, rel=1e-3)


def test_an_evaluation_of_nothing_is_no_number() -> None:
    empty = Examples.of(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64))
    result = evaluate(initial_head("linear", WIDTH, 3), empty, 3)
    assert (result.n, result.losses, result.measured) == (0, 0.0, False)
    assert math.isnan(result.accuracy)
    assert math.isnan(result.loss)
    assert result.confusion.shape == (3, 3)


def grouped(n: int, seed: int, groups: list[str]) -> Examples:
    examples = toy_examples(n, seed)
    return Examples.of(examples.x, examples.y, groups)


def some(examples: Examples, rows: list[int], groups: list[str] | None = None) -> Examples:
    names = None if groups is None else [groups[row] for row in rows]
    return Examples.of(examples.x[rows], examples.y[rows], names)


@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans(), st.floats(0, 100))
def test_one_example_moves_what_is_released_by_at_most_the_bound(
    seed: int, n: int, confusion: bool, size: float
) -> None:
    """Otherwise the noise hides less than the report says."""
    examples, head = toy_examples(n, seed), steep(seed, size)
    whole, without = (
        metrics_vector(head, part, 3, release=metrics(), confusion=confusion)
        for part in (examples, some(examples, list(range(1, n))))
    )
    assert np.linalg.norm(whole - without) <= METRICS_NORM + 1e-9
    counted = label_counts(examples, 3) - label_counts(some(examples, list(range(1, n))), 3)
    assert np.linalg.norm(counted) <= LABELS_NORM


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from(["p1", "p2", "p3"]), min_size=1, max_size=14),
    st.booleans(),
)
def test_a_whole_group_moves_what_is_released_by_at_most_the_bound(
    seed: int, groups: list[str], confusion: bool
) -> None:
    """A patient with many images must not weigh more than one with a single image."""
    examples, head = grouped(len(groups), seed, groups), steep(seed)
    left = [row for row, name in enumerate(groups) if name != groups[0]]
    rest = some(examples, left, groups)
    release = metrics(unit="group")
    whole, without = (
        metrics_vector(head, part, 3, release=release, confusion=confusion)
        for part in (examples, rest)
    )
    assert np.linalg.norm(whole - without) <= METRICS_NORM + 1e-9
    assert whole[:2].sum() == pytest.approx(len(set(groups)))
    counts = [
        label_counts(part, 3, release=labels(1e-9, unit="group"), streams=SystemStreams())
        for part in (examples, rest)
    ]
    assert np.linalg.norm(counts[0] - counts[1]) <= LABELS_NORM + 1e-6


def test_the_bound_is_reached_so_that_no_noise_is_wasted() -> None:
    examples, head = toy_examples(1, 5), steep(5, 1000.0)
    head["weight"] *= -1 if evaluate(head, examples, 3).right else 1
    for confusion in (False, True):
        vector = metrics_vector(head, examples, 3, release=metrics(), confusion=confusion)
        assert np.linalg.norm(vector) == pytest.approx(METRICS_NORM)


def test_overflowing_scores_do_not_show_through_the_noise() -> None:
    """A nan would say that an example of a certain kind is there, whatever the noise."""
    examples = toy_examples(20, 3)
    head = {"weight": np.full((3, WIDTH), 3e38, np.float32) * np.float32([[1], [-1], [1]])}
    assert not np.isfinite(evaluate(head, examples, 3).losses)
    vector = metrics_vector(head, examples, 3, release=metrics(), confusion=True)
    assert np.isfinite(vector).all()
    for at in range(20):
        rest = some(examples, [row for row in range(20) if row != at])
        without = metrics_vector(head, rest, 3, release=metrics(), confusion=True)
        assert np.linalg.norm(vector - without) <= METRICS_NORM + 1e-9


def drawn(examples: Examples, head: dict[str, np.ndarray], *, confusion: bool) -> np.ndarray:
    """Return many noised answers, each ``[3 + C²]`` in the units of an evaluation."""
    answers = [
        evaluate(
            head,
            examples,
            3,
            release=metrics(1.5),
            streams=SeededStreams(at, 1, "a", "metrics"),
            confusion=confusion,
        )
        for at in range(1500)
    ]
    return np.array(
        [
            [a.wrong, a.right, a.losses, *([] if a.confusion is None else a.confusion.ravel())]
            for a in answers
        ]
    )


@pytest.mark.parametrize("confusion", [False, True])
def test_every_number_carries_the_promised_noise_and_no_other(confusion: bool) -> None:
    examples, head = toy_examples(30, 8), initial_head("linear", WIDTH, 3)
    exact = evaluate(head, examples, 3)
    got = drawn(examples, head, confusion=confusion)
    unit = 1.5 * METRICS_NORM
    spread = math.sqrt(2) if confusion else 1.0
    deviations = np.array([unit, unit, spread * unit * loss_bound(3), *[spread * unit] * 9])
    true = np.array([exact.wrong, exact.right, exact.losses, *exact.confusion.ravel()])  # type: ignore[union-attr]
    standard = (got - true[: got.shape[1]]) / deviations[: got.shape[1]]
    assert standard.shape == (1500, 12 if confusion else 3)
    assert np.abs(standard.mean(0)).max() < 4.5 / 1500**0.5
    assert np.abs(standard.std(0) - 1).max() < 4.5 / 3000**0.5
    together = np.corrcoef(standard.T) - np.eye(standard.shape[1])
    assert np.abs(together).max() < 4.5 / 1500**0.5


@pytest.mark.parametrize("streams", [SystemStreams(), SeededStreams(1, 1, "a", "metrics")])
def test_no_count_can_be_ruled_out_by_the_numbers_that_the_noise_can_be(streams: Streams) -> None:
    """Of noise in floating point, only few numbers exist: the right count alone leaves one."""
    examples, head = toy_examples(30, 8), steep(3)
    told = evaluate(head, examples, 3, release=metrics(), streams=streams)
    assert told.confusion is not None
    labelled = label_counts(examples, 3, release=labels(), streams=streams)
    steps = np.array([told.wrong, told.right, *told.confusion.ravel(), *labelled]) / STEP
    assert (steps == np.rint(steps)).all()
    assert len({int(step) % 64 for step in steps}) > 5  # down to the last bits
    assert (np.abs(steps) < 2**53).all()


def test_labels_carry_the_promised_noise() -> None:
    examples = toy_examples(50, 2)
    exact = label_counts(examples, 3)
    assert exact.tolist() == np.bincount(examples.y.numpy(), minlength=3).tolist()
    noised = np.array(
        [
            label_counts(examples, 3, release=labels(3.0), streams=SeededStreams(s, 0, "a"))
            for s in range(1500)
        ]
    )
    assert np.abs((noised - exact).std(0) / 3 - 1).max() < 4.5 / 3000**0.5
    assert np.abs((noised - exact).mean(0)).max() < 4.5 * 3 / 1500**0.5


@pytest.mark.parametrize(
    "release",
    [toy_release(), metrics(clip_norm=1.0), labels()],
    ids=["gradients", "less", "labels"],
)
def test_a_release_of_something_else_covers_no_metrics(release: Release) -> None:
    with pytest.raises(PrivacyError) as error:
        evaluate(steep(1), toy_examples(5, 1), 3, release=release, streams=SystemStreams())
    assert error.value.code == "plan.mismatch"
    assert error.value.next_step


def test_there_is_no_release_without_streams_or_without_groups() -> None:
    with pytest.raises(PrivacyError, match="needs streams"):
        evaluate(steep(1), toy_examples(5, 1), 3, release=metrics())
    with pytest.raises(PrivacyError, match="needs streams"):
        label_counts(toy_examples(5, 1), 3, release=labels())
    with pytest.raises(PrivacyError) as error:
        label_counts(toy_examples(5, 1), 3, release=labels(unit="group"), streams=SystemStreams())
    assert error.value.code == "plan.no-groups"
