"""Fast training against slow, obvious training on random shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import Fixed, clipped_sum, opacus_sum, slow_fit
from toys import toy_examples, toy_release

from fedtl.errors import PrivacyError
from fedtl.privacy.plan import Release
from fedtl.train.fit import Examples, fit
from fedtl.train.objectives import Bound
from fedtl.train.objectives.proximal import Proximal
from fedtl.train.task import TrainTask


def head(classes: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(classes, width))).float() * 0.3


def fit_one(
    start: torch.Tensor,
    examples: Examples,
    task: TrainTask,
    release: Release | None = None,
    streams: object = None,
    round_: int = 1,
    objective: Bound | None = None,
) -> torch.Tensor:
    heads = fit(
        start[None],
        [examples],
        task=task,
        release=release,
        streams=[streams or Fixed()],  # type: ignore[list-item]
        round_=round_,
        objective=objective,
    )
    return heads[0]


shapes = st.tuples(
    st.integers(0, 40), st.integers(2, 7), st.integers(2, 5), st.integers(0, 2**16)
)  # examples, width, classes, seed


@settings(max_examples=40)
@given(shapes, st.sampled_from([0.05, 0.5, 100.0]), st.sampled_from([0.0, 1.0, -0.5]))
def test_a_private_step_is_the_clipped_noised_sum_over_a_public_number(
    shape: tuple[int, int, int, int], clip: float, noise: float
) -> None:
    n, width, classes, seed = shape
    examples = toy_examples(n, seed, width=width, classes=classes)
    release = toy_release(clip_norm=clip)
    task, start = TrainTask(rounds=1, steps=2, lr=0.7), head(classes, width, seed)
    expected = slow_fit(start, examples, task, release, Fixed(value=noise))
    actual = fit_one(start, examples, task, release, Fixed(value=noise))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", [0.01, 0.3, 50.0])
def test_clipped_sums_equal_opacus(clip: float) -> None:
    examples, start = toy_examples(50, 3, width=9, classes=4), head(4, 9)
    release = toy_release(clip_norm=clip, public_size=1.0)
    after = fit_one(start, examples, TrainTask(rounds=1, lr=1.0), release)
    # Opacus divides by norm + 1e-6, which moves clipped gradients by one millionth of their norm
    expected = opacus_sum(start, examples.x, examples.y, clip)
    torch.testing.assert_close(start - after, expected, atol=1e-5, rtol=1e-5)


def test_an_examples_influence_never_exceeds_the_clip_norm() -> None:
    """Otherwise the noise would be too small for whoever has the largest features."""
    examples = toy_examples(30, 5)
    loud = Examples.of(
        torch.cat([examples.x, 1e4 * torch.ones(1, 6)]), torch.cat([examples.y, torch.tensor([0])])
    )
    release, task = toy_release(clip_norm=0.5, public_size=1.0), TrainTask(rounds=1, lr=1.0)
    with_, without = (fit_one(head(3, 6), e, task, release) for e in (loud, examples))
    assert float((with_ - without).norm()) <= 0.5 + 1e-5


OPTIONS = {
    "momentum": {"momentum": 0.8},
    "adam": {"optimizer": "adam", "lr": 0.05},
    "weight-decay": {"weight_decay": 0.2},
    "proximal": {"mu": 0.7},
    "cosine": {"schedule": "cosine"},
    "linear": {"schedule": "linear"},
    "averaging": {"averaging": 0.6},
    "everything": {"optimizer": "adam", "lr": 0.05, "weight_decay": 0.1, "averaging": 0.5}
    | {"mu": 0.3, "schedule": "cosine"},
}


@pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_equal_torchs_optimisers(options: dict[str, object], private: bool) -> None:
    given = {"rounds": 4, "steps": 5, "lr": 0.5} | options
    mu = float(given.pop("mu", 0.0))  # type: ignore[arg-type]
    task = TrainTask(**given)  # type: ignore[arg-type]
    release = toy_release() if private else None
    examples, start = toy_examples(25, 2), head(3, 6)
    expected = slow_fit(start, examples, task, release, Fixed(value=0.3), round_=3, mu=mu)
    pulled = Bound(Proximal(mu=mu))
    actual = fit_one(start, examples, task, release, Fixed(value=0.3), round_=3, objective=pulled)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    sampling=st.sampled_from(["full", "poisson", "shuffle"]),
    private=st.booleans(),
    chunk=st.integers(2, 5),
)
def test_a_padded_cohort_equals_its_sites_one_by_one(
    sizes: list[int], sampling: str, private: bool, chunk: int
) -> None:
    """The way of a GPU (padded, masked, ragged, with empty sites) against the way of a CPU."""
    private = private and sampling != "shuffle"
    release = toy_release(poisson=sampling == "poisson") if private else None
    task = TrainTask(rounds=1, steps=3, sampling=sampling, batch_size=8, lr=0.5, momentum=0.5)
    sites = [toy_examples(n, at) for at, n in enumerate(sizes)]
    heads = torch.stack([head(3, 6, at) for at in range(len(sizes))])

    def trained(size: int) -> torch.Tensor:
        streams = [Fixed(at, value=0.1 * at) for at in range(len(sizes))]
        return fit(heads, sites, task=task, release=release, streams=streams, chunk=size)

    torch.testing.assert_close(trained(chunk), trained(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3])
def test_training_leaves_heads_and_examples_alone(chunk: int) -> None:
    sites = [toy_examples(12 + at, at) for at in range(3)]
    heads = torch.stack([head(3, 6, at) for at in range(3)])
    before = [heads.clone(), *(t.clone() for s in sites for t in (s.x, s.y, s.norms))]
    task = TrainTask(rounds=1, steps=4, momentum=0.9, weight_decay=0.1, averaging=0.5)
    fit(
        heads,
        sites,
        task=task,
        release=toy_release(),
        streams=[Fixed() for _ in sites],
        chunk=chunk,
    )
    after = [heads, *(t for s in sites for t in (s.x, s.y, s.norms))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_sites_bits_do_not_depend_on_its_cohort() -> None:
    sites = [toy_examples(60 + 9 * at, at) for at in range(4)]
    task, release = TrainTask(rounds=1, steps=3, sampling="poisson"), toy_release(poisson=True)
    start = head(3, 6).expand(4, -1, -1)
    streams = [Fixed(at, 0.2) for at in range(4)]
    together = fit(start, sites, task=task, release=release, streams=streams)
    alone = [fit_one(head(3, 6), s, task, release, Fixed(at, 0.2)) for at, s in enumerate(sites)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_rows_beyond_one_block_are_summed_too() -> None:
    """A site larger than the block of rows that fits the cache loses none of them."""
    examples, start = toy_examples(5000, 1), head(3, 6)
    after = fit_one(start, examples, TrainTask(rounds=1, lr=1.0))
    mean = clipped_sum(start.double(), examples.x.double(), examples.y, None) / 5000
    torch.testing.assert_close(start - after, mean.float(), atol=1e-6, rtol=1e-4)


def test_without_a_plan_an_empty_site_keeps_its_head() -> None:
    after = fit_one(head(3, 6), toy_examples(0, 1), TrainTask(rounds=1, steps=3))
    assert torch.equal(after, head(3, 6))


@pytest.mark.parametrize(
    ("task", "release"),
    [
        (TrainTask(rounds=1, sampling="shuffle"), toy_release()),
        (TrainTask(rounds=1, sampling="shuffle"), toy_release(poisson=True)),
        (TrainTask(rounds=1, sampling="full"), toy_release(poisson=True)),
        (TrainTask(rounds=1), toy_release(mechanism="statistics")),
    ],
)
def test_batches_that_the_accounting_does_not_cover_are_refused(
    task: TrainTask, release: Release
) -> None:
    with pytest.raises(PrivacyError) as error:
        fit_one(head(3, 6), toy_examples(5, 1), task, release)
    assert error.value.code == "plan.mismatch"
    assert error.value.next_step


def test_poisson_batches_at_rate_one_are_full_batches() -> None:
    """A recipe whose batch is as large as a site must not be refused by its own plan."""
    examples, release = toy_examples(20, 1), toy_release()
    full, poisson = (
        fit_one(head(3, 6), examples, TrainTask(rounds=1, steps=3, sampling=s), release)
        for s in ("full", "poisson")
    )
    torch.testing.assert_close(full, poisson)
