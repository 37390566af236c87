"""Training of heads on cached features, with a leading site axis. The mathematics is written once.

``fit`` trains S linear heads on S sites. The heads are ``[S, C, d]``; every inner step is written
for ``[S, B, d]`` batches with a mask, so one site is S = 1 and a cohort is S = N. The site axis is
walked in chunks: on a GPU the whole cohort at once, on a CPU as many sites as the processor's cache
holds. On a CPU a site's numbers do not depend on who else is in the cohort, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fedtl.errors import PrivacyError
from fedtl.privacy.clip import clip_residuals
from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.batches import Batch, Examples, batches, chunks
from fedtl.train.optim import Optimizer
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.train.threads import LARGE, one_thread

__all__ = ["Examples", "check_sampling", "fit"]


@torch.inference_mode()
def fit(
    heads: Tensor,
    sites: Sequence[Examples],
    *,
    task: TrainTask,
    plan: PrivacyPlan | None,
    streams: Sequence[Streams],
    round_: int = 1,
    chunk: int | None = None,
) -> Tensor:
    """Train one linear softmax head per site for one round.

    The loss is the mean cross-entropy. With a plan, every step releases the sum of the examples'
    clipped gradients plus Gaussian noise (Abadi et al. 2016, arXiv:1607.00133, alg. 1), divided by
    the publicly known expected batch; without one, the plain mean gradient of the batch.

    Parameters
    ----------
    heads : Tensor
        ``[S, C, d]`` float32 heads at the start of the round; left alone.
    sites : sequence of Examples
        One per head; sizes may differ.
    task : TrainTask
        Steps, batches and optimiser.
    plan : PrivacyPlan or None
        None trains without privacy.
    streams : sequence of Streams
        One per head.
    round_ : int
        Server round from 1, for the learning-rate schedule.
    chunk : int, optional
        Sites per tensor program; the default fits the device, and on a CPU keeps sites apart
        wherever a neighbour could change the last bit.

    Returns
    -------
    Tensor
        ``[S, C, d]`` trained heads.

    Raises
    ------
    PrivacyError
        A private plan meets a sampling that its accounting does not cover.
    """
    check_sampling(task, plan)
    out = torch.empty_like(heads)
    if chunk is None and heads.device.type == "cpu":
        parts = list(chunks(sites, task))
    else:
        size = chunk or max(len(sites), 1)
        parts = [slice(start, start + size) for start in range(0, len(sites), size)]

    def large(part: slice) -> bool:
        return max(site.x.numel() for site in sites[part]) > LARGE

    for all_threads, group in groupby(sorted(parts, key=large), key=large):
        with one_thread(unless=all_threads):
            for part in group:
                data = [site.to(heads.device) for site in sites[part]]
                out[part] = _fit_chunk(heads[part], data, task, plan, streams[part], round_)
    return out


def check_sampling(task: TrainTask, plan: PrivacyPlan | None) -> None:
    """Refuse batches that the plan does not cover; at rate 1 a Poisson batch is full."""
    if plan is None:
        return
    covered = ("full", "poisson") if plan.sampling_rate == 1 else ("poisson",)
    if task.sampling not in covered or plan.mechanism != "gradients":
        raise PrivacyError(
            f"The plan covers {' or '.join(covered)} batches of {plan.mechanism}, the task asks "
            f"for {task.sampling} batches of gradients.",
            next_step="Set train.sampling to 'full' or 'poisson' and let the plan be made from it.",
            code="plan.mismatch",
        )


def _fit_chunk(
    heads: Tensor,
    sites: Sequence[Examples],
    task: TrainTask,
    plan: PrivacyPlan | None,
    streams: Sequence[Streams],
    round_: int,
) -> Tensor:
    """Run the steps of one round on a chunk: heads ``[S, C, d]``."""
    weights = start = heads
    average: Tensor | None = None
    optimizer = Optimizer(task)
    for step, batch in enumerate(batches(sites, task, plan, streams)):
        gradient = _mean_gradient(weights, batch, plan)
        if plan is not None:
            _add_noise(gradient, plan, streams)
        if task.weight_decay:
            gradient.add_(weights, alpha=task.weight_decay)
        if task.proximal_mu:
            gradient.add_(weights - start, alpha=task.proximal_mu)
        weights = optimizer.step(weights, gradient, task.lr_at(round_, step))
        if task.averaging:
            average = weights if average is None else average.lerp(weights, 1 - task.averaging)
    return weights if average is None else average


def _mean_gradient(weights: Tensor, batch: Batch, plan: PrivacyPlan | None) -> Tensor:
    """Average the (clipped) gradients over the batch, streaming over rows: ``[S, C, d]``."""
    total: Tensor | None = None
    for part in batch.blocks():
        residuals = torch.softmax(_product(part.x, weights.mT), dim=-1)
        residuals.scatter_(-1, part.y.unsqueeze(-1), -1.0, reduce="add")
        if plan is not None and part.norms is not None:
            clip_residuals(residuals, part.norms, plan.clip_norm)
        if part.mask is not None:
            residuals *= part.mask.unsqueeze(-1)
        residuals *= _share(batch, plan)
        gradient = _product(residuals.mT, part.x)
        total = gradient if total is None else total.add_(gradient)
    return weights.new_zeros(weights.shape) if total is None else total


def _share(batch: Batch, plan: PrivacyPlan | None) -> Tensor | float:
    """Return what an example counts in the mean: under a plan, a public number divides."""
    if plan is not None:
        return 1 / (plan.sampling_rate * plan.public_size)
    if len(batch.sizes) == 1:
        return 1 / max(batch.sizes[0], 1)
    return 1 / torch.tensor(batch.sizes, device=batch.x.device).clamp(min=1)[:, None, None]


def _add_noise(gradient: Tensor, plan: PrivacyPlan, streams: Sequence[Streams]) -> None:
    """Add the plan's noise to mean gradients in place, each site's from its own stream."""
    scale = plan.noise_multiplier * plan.clip_norm / (plan.sampling_rate * plan.public_size)
    for row, stream in zip(gradient, streams, strict=True):
        row.add_(stream.normal(tuple(row.shape)).to(row.device), alpha=scale)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply stacks of matrices.

    On a CPU NumPy does it: for such thin matrices its OpenBLAS takes a third of the time of torch's
    MKL on AMD processors.
    """
    if a.device.type != "cpu":
        return a @ b
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))
