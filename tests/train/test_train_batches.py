"""Who takes part in a step, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow import Fixed, slow_fit
from toys import toy_examples, toy_release

from fedtl.privacy.plan import Release
from fedtl.train.fit import Examples, fit
from fedtl.train.task import TrainTask


def chosen(n: int, task: TrainTask, release: Release | None, seed: int) -> np.ndarray:
    """Return ``[steps, n]``: whether an example took part, read off the gradient itself.

    Example i has the i-th unit vector as its features, so that column i of the update is zero
    exactly when it was left out.
    """
    examples = Examples.of(torch.eye(n), torch.zeros(n, dtype=torch.int64))
    out = []
    streams = Fixed(seed)
    for _ in range(task.steps):
        one = TrainTask(rounds=1, sampling=task.sampling, batch_size=task.batch_size)
        after = fit(torch.zeros(1, 2, n), [examples], task=one, release=release, streams=[streams])
        out.append(after[0].abs().sum(0).numpy() > 0)
    return np.array(out)


@pytest.mark.parametrize("release", [None, toy_release(poisson=True)], ids=["plain", "private"])
def test_poisson_batches_take_each_example_with_the_plans_probability(
    release: Release | None,
) -> None:
    n, steps = 30, 4000
    task = TrainTask(rounds=1, steps=steps, sampling="poisson", batch_size=12)
    taken = chosen(n, task, release, 3)
    rate = 0.4
    sd = (rate * (1 - rate) / steps) ** 0.5
    assert np.abs(taken.mean(0) - rate).max() < 4.5 * sd
    # independent of one another: sizes are binomial, not constant
    assert abs(taken.sum(1).var() / (n * rate * (1 - rate)) - 1) < 0.1
    pairs = np.corrcoef(taken.T.astype(float))[np.triu_indices(n, 1)]
    assert np.abs(pairs).max() < 5 / steps**0.5


def test_shuffled_batches_go_through_all_examples_before_any_comes_again() -> None:
    n, size = 24, 6
    examples = Examples.of(torch.eye(n), torch.zeros(n, dtype=torch.int64))
    counts = np.zeros(n)
    task = TrainTask(rounds=1, steps=n // size, sampling="shuffle", batch_size=size, lr=1e-3)
    for seed in range(5):
        after = fit(
            torch.zeros(1, 2, n), [examples], task=task, release=None, streams=[Fixed(seed)]
        )[0]
        once = after[1].abs()
        torch.testing.assert_close(once, once[:1].expand(n), rtol=1e-3, atol=0)
        counts += (once > 0).numpy()
    assert (counts == 5).all()


def test_shuffled_batches_treat_every_example_alike() -> None:
    """With a remainder that does not fill a batch, nobody is left out for good."""
    n, rounds = 10, 3000
    task = TrainTask(rounds=1, steps=1, sampling="shuffle", batch_size=4)
    examples = Examples.of(torch.eye(n), torch.zeros(n, dtype=torch.int64))
    streams, counts = Fixed(1), np.zeros(n)
    for _ in range(rounds):
        after = fit(torch.zeros(1, 2, n), [examples], task=task, release=None, streams=[streams])
        counts += after[0].abs().sum(0).numpy() > 0
    assert np.abs(counts / rounds - 0.4).max() < 4.5 * (0.24 / rounds) ** 0.5


def test_a_shuffled_fit_equals_the_slow_one_on_the_same_batches() -> None:
    examples, start = toy_examples(23, 4), torch.zeros(3, 6)
    task = TrainTask(rounds=1, steps=7, sampling="shuffle", batch_size=5, lr=0.4, momentum=0.3)
    order = np.random.default_rng(9)
    epochs = [order.permutation(23) for _ in range(2)]
    rows = [torch.from_numpy(e[5 * k : 5 * k + 5]) for e in epochs for k in range(4)][:7]
    expected = slow_fit(start, examples, task, None, Fixed(), rows=rows)
    actual = fit(start[None], [examples], task=task, release=None, streams=[Fixed(9)])[0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_sites_smaller_than_a_batch_train_all_the_same(n: int) -> None:
    task = TrainTask(rounds=1, steps=5, sampling="shuffle", batch_size=8)
    after = fit(
        torch.zeros(1, 3, 6), [toy_examples(n, 1)], task=task, release=None, streams=[Fixed()]
    )
    assert bool(after.isfinite().all())
    assert bool((after != 0).any()) == (n > 0)
