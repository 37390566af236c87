"""MLP heads by way of a training task: what the task says is what happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow import Fixed
from torch.nn import functional
from toys import WIDTH, toy_examples, toy_release

from fedtl.errors import PrivacyError, RecipeError
from fedtl.privacy.plan import Release
from fedtl.train.counts import evaluate
from fedtl.train.heads import initial_head
from fedtl.train.mlp import fit_mlp_head
from fedtl.train.objectives import Bound
from fedtl.train.objectives.proximal import Proximal
from fedtl.train.task import TrainTask
from fedtl.types import Arrays

START = initial_head("mlp", WIDTH, 3, hidden=8, seed=1)


def trained(
    task: TrainTask,
    release: Release | None = None,
    *,
    round_: int = 1,
    noise: float = 0.0,
    objective: Bound | None = None,
) -> Arrays:
    return fit_mlp_head(
        START,
        toy_examples(40, 1),
        task=task,
        release=release,
        streams=Fixed(3, noise),
        round_=round_,
        objective=objective,
    )


def mlp(**options: object) -> TrainTask:
    return TrainTask(**({"rounds": 4, "steps": 3, "lr": 0.5, "head": "mlp"} | options))  # type: ignore[arg-type]


def slow(
    task: TrainTask, release: Release | None, round_: int, noise: float, mu: float
) -> list[torch.Tensor]:
    """Per-example autograd, clipped over all tensors together, and torch's SGD."""
    examples = toy_examples(40, 1)
    leaves = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in START.values()]
    start = [leaf.detach().clone() for leaf in leaves]
    sgd = torch.optim.SGD(leaves, 1.0, momentum=task.momentum, weight_decay=task.weight_decay)
    for step in range(task.steps):
        totals = [torch.zeros_like(leaf) for leaf in leaves]
        for x, y in zip(examples.x, examples.y, strict=True):
            inner = functional.gelu(functional.linear(x, leaves[0], leaves[1]))
            loss = functional.cross_entropy(functional.linear(inner, *leaves[2:])[None], y[None])
            gradients = torch.autograd.grad(loss, leaves)
            norm = float(torch.sqrt(sum(g.square().sum() for g in gradients)))
            scale = min(1.0, release.clip_norm / norm) if release else 1.0
            for total, gradient in zip(totals, gradients, strict=True):
                total += scale * gradient
        for leaf, total, origin in zip(leaves, totals, start, strict=True):
            if release:
                total += noise * release.noise_multiplier * release.clip_norm
                leaf.grad = total / release.public_size
            else:
                leaf.grad = total / len(examples)
            leaf.grad += mu * (leaf.detach() - origin)
        sgd.param_groups[0]["lr"] = task.lr_at(round_, step)
        sgd.step()
    return [leaf.detach() for leaf in leaves]


@pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])
@pytest.mark.parametrize(
    "options",
    [{}, {"schedule": "cosine"}, {"momentum": 0.8}, {"weight_decay": 0.2}, {"mu": 0.6}],
    ids=str,
)
def test_training_equals_the_slow_way(options: dict[str, object], private: bool) -> None:
    given = dict(options)
    mu = float(given.pop("mu", 0.0))  # type: ignore[arg-type]
    task, release = mlp(**given), toy_release() if private else None
    expected = slow(task, release, 3, 0.4, mu)
    actual = trained(task, release, round_=3, noise=0.4, objective=Bound(Proximal(mu=mu)))
    for name, value in zip(START, expected, strict=True):
        np.testing.assert_allclose(actual[name], value.numpy(), atol=2e-5, err_msg=name)


def test_training_learns_and_leaves_its_start_alone() -> None:
    before = {k: v.copy() for k, v in START.items()}
    head = trained(mlp(steps=150))
    assert all(np.array_equal(before[k], START[k]) for k in START)
    assert evaluate(head, toy_examples(200, 2), 3).accuracy > 0.85


def test_private_poisson_batches_follow_the_plan() -> None:
    """The task's own batch size would give other batches than the accounting covers."""
    release = toy_release(poisson=True)
    by_plan = [trained(mlp(sampling="poisson", batch_size=b), release) for b in (1, 1000)]
    assert all(np.array_equal(by_plan[0][k], by_plan[1][k]) for k in START)
    full = trained(mlp(), toy_release())
    assert not np.array_equal(by_plan[0]["out.bias"], full["out.bias"])


def test_batches_outside_the_plan_are_refused() -> None:
    with pytest.raises(PrivacyError) as error:
        trained(mlp(), toy_release(poisson=True))
    assert error.value.code == "plan.mismatch"


@pytest.mark.parametrize(
    "options", [{"optimizer": "adam"}, {"averaging": 0.5}, {"sampling": "shuffle"}], ids=str
)
def test_what_only_linear_heads_have_is_refused_not_ignored(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="linear heads only") as error:
        trained(mlp(**options))
    assert error.value.code == "task.unsupported"
