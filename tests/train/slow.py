"""Training of a linear head as the papers write it: one example, one step, one site at a time."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedtl.privacy.plan import Release
from fedtl.train.fit import Examples
from fedtl.train.task import TrainTask


class Fixed:
    """Streams whose noise is known: ``value`` everywhere; batches from a seeded generator."""

    seeded = True

    def __init__(self, seed: int = 0, value: float = 0.0) -> None:
        self.batches = np.random.default_rng(seed)
        self.value = value

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, self.value)


def clipped_sum(weight: Tensor, x: Tensor, y: Tensor, clip: float | None) -> Tensor:
    """Sum per-example gradients by autograd, each scaled to norm ``clip`` at most."""
    total = torch.zeros_like(weight)
    for row, label in zip(x, y, strict=True):
        leaf = weight.clone().requires_grad_()
        functional.cross_entropy((leaf @ row)[None], label[None]).backward()
        norm = float(leaf.grad.norm())
        total += leaf.grad * (min(1.0, clip / norm) if clip is not None and norm > 0 else 1.0)
    return total


def opacus_sum(weight: Tensor, x: Tensor, y: Tensor, clip: float) -> Tensor:
    """Sum clipped gradients as Opacus' hooks and its DPOptimizer make them."""
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    layer = torch.nn.Linear(x.shape[1], len(weight), bias=False)
    layer.weight.data.copy_(weight)
    model = GradSampleModule(layer, loss_reduction="sum")
    sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        functional.cross_entropy(model(x), y, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    return layer.weight.summed_grad


def slow_fit(
    head: Tensor,
    examples: Examples,
    task: TrainTask,
    release: Release | None,
    streams: Fixed,
    *,
    round_: int = 1,
    rows: list[Tensor] | None = None,
    mu: float = 0.0,
) -> Tensor:
    """Train one head with torch's own optimisers, in float64; ``rows`` gives the batches."""
    weight = torch.nn.Parameter(head.double().clone())
    start, average = weight.detach().clone(), None
    if task.optimizer == "adam":
        optimizer = torch.optim.Adam([weight], lr=1.0)
    else:
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=task.momentum)
    for step in range(task.steps):
        chosen = rows[step] if rows is not None else torch.arange(len(examples))
        x, y = examples.x[chosen].double(), examples.y[chosen]
        gradient = clipped_sum(weight.detach(), x, y, release.clip_norm if release else None)
        if release is None:
            gradient /= max(len(y), 1)
        else:
            gradient += release.noise_multiplier * release.clip_norm * streams.value
            gradient /= release.sampling_rate * release.public_size
        gradient += task.weight_decay * weight.detach()
        weight.grad = gradient + mu * (weight.detach() - start)
        for group in optimizer.param_groups:
            group["lr"] = task.lr_at(round_, step)
        optimizer.step()
        new = weight.detach().clone()
        average = new if average is None else task.averaging * average + (1 - task.averaging) * new
    return (average if task.averaging else weight.detach()).float()
