"""A patient with several images is one unit: what bounds it, and what draws it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import Fixed
from torch.nn import functional
from toys import toy_examples, toy_release

from fedtl.errors import PrivacyError, RecipeError
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.train.additive import statistics
from fedtl.train.batches import batches
from fedtl.train.fit import Examples, fit
from fedtl.train.heads import initial_head
from fedtl.train.mlp import fit_mlp_head
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask

CLASSES, WIDTH = 3, 5


def grouped(n: int, seed: int, *, most: int = 5) -> tuple[Examples, list[str]]:
    groups = [f"p{g}" for g in np.random.default_rng(seed).integers(0, max(n // most, 1), n)]
    examples = toy_examples(n, seed, width=WIDTH, classes=CLASSES)
    return Examples.of(examples.x, examples.y, groups), groups


def group_release(**changes: object) -> Release:
    return toy_release(**({"unit": "group"} | changes))


def slow_sum(
    weight: torch.Tensor, examples: Examples, groups: list[str], clip: float
) -> torch.Tensor:
    """Sum each patient's gradient by autograd, clip it, and sum over patients."""
    total = torch.zeros_like(weight)
    for name in set(groups):
        rows = [at for at, group in enumerate(groups) if group == name]
        leaf = weight.clone().requires_grad_()
        functional.cross_entropy(
            examples.x[rows] @ leaf.T, examples.y[rows], reduction="sum"
        ).backward()
        total += leaf.grad * min(1.0, clip / max(float(leaf.grad.norm()), 1e-12))
    return total


def released(
    weight: torch.Tensor, examples: Examples, release: Release, task: TrainTask | None = None
) -> torch.Tensor:
    """Return the sum behind one step without noise."""
    task = task or TrainTask(rounds=1, lr=1.0)
    after = fit(weight[None], [examples], task=task, release=release, streams=[Fixed(value=0.0)])[0]
    return (weight - after) * release.public_size


def start(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(CLASSES, WIDTH))).float()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 9), st.integers(0, 999), st.sampled_from([0.05, 1.0, 50.0])
)
def test_a_groups_summed_gradient_is_clipped(n: int, most: int, seed: int, clip: float) -> None:
    examples, groups = grouped(n, seed, most=most)
    expected = slow_sum(start(seed), examples, groups, clip)
    actual = released(start(seed), examples, group_release(clip_norm=clip))
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_one_patient_more_moves_the_sum_by_no_more_than_the_clip_norm(cap: int) -> None:
    release, moved = group_release(clip_norm=0.2, unit_cap=cap), []
    for seed in range(20):
        examples, groups = grouped(30, seed)
        rows = torch.tensor([at for at, group in enumerate(groups) if group != groups[0]])
        rest = Examples.of(examples.x[rows], examples.y[rows], [groups[at] for at in rows])
        with_, without = (released(start(seed), e, release) for e in (examples, rest))
        moved.append(float((with_ - without).norm()))
    assert max(moved) <= 0.2 * 1.0001
    assert max(moved) > 0.1  # the bound is used, so it is the right one


def test_the_same_bound_without_groups_would_be_broken() -> None:
    """What the unit is there for: protecting examples does not protect patients."""
    examples, groups = grouped(30, 1, most=10)
    rows = torch.tensor([at for at, group in enumerate(groups) if group != groups[0]])
    rest = Examples.of(examples.x[rows], examples.y[rows])
    release = toy_release(clip_norm=0.2)
    assert (
        float((released(start(1), examples, release) - released(start(1), rest, release)).norm())
        > 0.3
    )


def test_statistics_move_by_one_example_whatever_a_patient_has() -> None:
    release = group_release(mechanism="statistics", clip_norm=1.0, noise_multiplier=1e-9)
    for seed in range(10):
        examples, groups = grouped(40, seed, most=8)
        rows = torch.tensor([at for at, group in enumerate(groups) if group != groups[0]])
        rest = Examples.of(examples.x[rows], examples.y[rows], [groups[at] for at in rows])
        both = [statistics(e, CLASSES, release=release, streams=Fixed()) for e in (examples, rest)]
        gram, moment = (both[0][k] - both[1][k] for k in ("gram", "moment"))
        diagonal = np.equal(*np.triu_indices(WIDTH))
        size = (gram**2 * np.where(diagonal, 1, 2)).sum() + (moment**2).sum()
        assert 0.1 < size <= 2 + 1e-9


def test_poisson_draws_whole_patients() -> None:
    examples, _ = grouped(60, 4)
    release = group_release(sampling_rate=0.4)
    task = TrainTask(rounds=1, steps=200, sampling="poisson")
    sizes = examples.units.sizes
    drawn = []
    for batch in batches([examples], task, release, [SeededStreams(1, 1, "a")]):
        here = torch.bincount(batch.units.of_row, minlength=examples.units.count)
        assert ((here == 0) | (here == sizes)).all()
        drawn.append((here > 0).float().mean())
    assert abs(float(torch.stack(drawn).mean()) - 0.4) < 0.03


@pytest.mark.parametrize("sampling", ["full", "poisson"])
@pytest.mark.parametrize("cap", [0, 2])
def test_neighbours_in_a_chunk_change_no_bit(sampling: str, cap: int) -> None:
    sites = [grouped(n, n)[0] for n in (30, 1, 0, 17, 2100)]
    release = group_release(unit_cap=cap, sampling_rate=0.4 if sampling == "poisson" else 1.0)
    task = TrainTask(rounds=1, steps=2, sampling=sampling, lr=0.3)

    def trained(chosen: list[int]) -> torch.Tensor:
        streams = [SeededStreams(1, 1, str(at)) for at in chosen]
        heads = start(1).expand(len(chosen), -1, -1)
        return fit(heads, [sites[at] for at in chosen], task=task, release=release, streams=streams)

    together = trained(list(range(len(sites))))
    assert all(torch.equal(together[at], trained([at])[0]) for at in range(len(sites)))


def test_a_cap_keeps_the_first_examples_of_each_patient() -> None:
    examples = Examples.of(torch.arange(8.0)[:, None], torch.zeros(8).long(), list("abaabbac"))
    assert examples.at_most(2).x.flatten().tolist() == [0, 1, 2, 4, 7]
    assert examples.at_most(9) is examples
    kept = examples.at_most(2).units
    assert kept.sizes.tolist() == [2, 2, 1]


@pytest.mark.parametrize("cap", [0, 2])
@pytest.mark.parametrize("poisson", [False, True])
def test_data_without_groups_cannot_protect_groups(cap: int, poisson: bool) -> None:
    release = group_release(unit_cap=cap, sampling_rate=0.4 if poisson else 1.0)
    task = TrainTask(rounds=1, sampling="poisson" if poisson else "full")
    with pytest.raises(PrivacyError, match="'group' column") as error:
        released(start(1), toy_examples(5, 1, width=WIDTH), release, task)
    assert error.value.code == "plan.no-groups"
    head = initial_head("mlp", WIDTH, CLASSES, hidden=4)
    with pytest.raises((PrivacyError, RecipeError)):
        fit_mlp_head(
            head, toy_examples(5, 1, width=WIDTH), task=task, release=release, streams=Fixed()
        )


@pytest.mark.parametrize(
    "changes", [{"unit_cap": -1}, {"unit": "example", "unit_cap": 2}, {"unit": "patient"}], ids=str
)
def test_plans_that_contradict_themselves_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrivacyError, match=next(iter(changes))):
        group_release(**changes)


def test_a_plan_of_groups_travels_and_says_so() -> None:
    plan = PrivacyPlan(1e4, 1e-5, (group_release(unit_cap=4),))
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert "per group" in plan.describe()
    assert "4 examples" in plan.describe()


def test_an_mlp_protects_groups_by_a_cap_only() -> None:
    examples, groups = grouped(12, 2)
    head = initial_head("mlp", WIDTH, CLASSES, hidden=4)
    task = TrainTask(rounds=1, lr=1.0, head="mlp")

    def trained(release: Release, data: Examples) -> np.ndarray:
        after = fit_mlp_head(head, data, task=task, release=release, streams=Fixed(value=0.0))
        moved = [(head[name] - after[name]).ravel() for name in head]
        return np.concatenate(moved) * release.public_size

    with pytest.raises(RecipeError, match="unit_cap"):
        trained(group_release(), examples)
    release = group_release(clip_norm=0.1, unit_cap=2)
    rows = torch.tensor([at for at, group in enumerate(groups) if group != groups[0]])
    rest = Examples.of(examples.x[rows], examples.y[rows], [groups[at] for at in rows])
    assert np.linalg.norm(trained(release, examples) - trained(release, rest)) <= 0.1001
