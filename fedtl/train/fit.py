"""Training of heads on cached features, with a leading site axis. The mathematics is written once.

``fit`` trains S linear heads on S sites. The heads are ``[S, C, d]``; every inner step is written
for ``[S, B, d]`` batches with a mask, so one site is S = 1 and a cohort is S = N. The site axis is
walked in chunks: on a GPU the whole cohort at once, on a CPU one site at a time, because a site's
features then stay in the processor's cache over all its steps (measured: as fast as one batched
program, and no padding). On a CPU a site's numbers therefore do not depend on who else is in the
cohort, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fedtl.errors import PrivacyError
from fedtl.privacy.clip import clip_residuals
from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.optim import Optimizer
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.train.threads import LARGE, one_thread

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Examples:
    """A site's training or held-out examples.

    Attributes
    ----------
    x : Tensor
        ``[n, d]`` float32 features, bias feature included; may be memory-mapped.
    y : Tensor
        ``[n]`` int64 class indices.
    norms : Tensor
        ``[n]`` L2 norms of the rows of ``x``.
    """

    x: Tensor
    y: Tensor
    norms: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Examples:
        """Compute the norms once, in blocks of rows so that a mapped file is streamed."""
        parts = [rows.norm(dim=1) for rows in torch.split(x, _ROWS_AT_ONCE)]
        return cls(x, y, torch.cat(parts) if parts else x.new_zeros(0))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)


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
        Sites per tensor program; the default fits the device.

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
    size = chunk or (1 if heads.device.type == "cpu" else max(len(sites), 1))
    out = torch.empty_like(heads)
    parts = [slice(start, start + size) for start in range(0, len(sites), size)]

    def large(part: slice) -> bool:
        return max(site.x.numel() for site in sites[part]) > LARGE

    for all_threads, group in groupby(sorted(parts, key=large), key=large):
        with one_thread(unless=all_threads):
            for part in group:
                batch = _Batch.of(sites[part], heads.device, norms=plan is not None)
                out[part] = _fit_chunk(heads[part], batch, task, plan, streams[part], round_)
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


@dataclass(frozen=True, slots=True)
class _Batch:
    """Examples of a chunk of sites, padded to the largest: ``[S, n, d]`` and ``[S, n]``."""

    x: Tensor
    y: Tensor
    norms: Tensor | None
    mask: Tensor | None
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sites: Sequence[Examples], device: torch.device, *, norms: bool) -> _Batch:
        """Gather the sites' examples; ``norms`` are only needed for clipping."""
        sizes = tuple(len(s) for s in sites)
        x, y = _stacked([s.x for s in sites], device), _stacked([s.y for s in sites], device)
        lengths = _stacked([s.norms for s in sites], device) if norms else None
        return cls(x, y, lengths, _mask(sizes, device), sizes)

    def take(self, chosen: Sequence[Tensor]) -> _Batch:
        """Gather each site's chosen rows."""
        sizes = tuple(len(c) for c in chosen)
        rows = _stacked(chosen, self.x.device)
        norms = None if self.norms is None else _rows_of(self.norms, rows)
        mask = _mask(sizes, rows.device)
        return _Batch(_rows_of(self.x, rows), _rows_of(self.y, rows), norms, mask, sizes)

    def blocks(self) -> Iterator[_Batch]:
        """Cut into blocks of rows, so that what is computed from them stays small."""
        n = self.x.shape[1]
        if n <= _ROWS_AT_ONCE:
            yield self
            return
        for at in range(0, n, _ROWS_AT_ONCE):
            part = slice(at, at + _ROWS_AT_ONCE)
            norms = None if self.norms is None else self.norms[:, part]
            mask = None if self.mask is None else self.mask[:, part]
            yield _Batch(self.x[:, part], self.y[:, part], norms, mask, self.sizes)


def _stacked(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    if len(parts) == 1:
        return parts[0].to(device)[None]
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(device)


def _mask(sizes: tuple[int, ...], device: torch.device) -> Tensor | None:
    if len(sizes) == 1:
        return None
    ends = torch.tensor(sizes, device=device)[:, None]
    return torch.arange(max(sizes), device=device) < ends


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    if len(rows) == 1:
        return values.index_select(1, rows[0])
    return values[torch.arange(len(rows), device=rows.device)[:, None], rows]


def _fit_chunk(
    heads: Tensor,
    data: _Batch,
    task: TrainTask,
    plan: PrivacyPlan | None,
    streams: Sequence[Streams],
    round_: int,
) -> Tensor:
    """Run the steps of one round on a chunk: heads ``[S, C, d]``."""
    weights = start = heads
    average: Tensor | None = None
    optimizer = Optimizer(task)
    rows = _batches(data.sizes, task, plan, streams)
    for step in range(task.steps):
        batch = data if rows is None else data.take(rows[step])
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


def _mean_gradient(weights: Tensor, batch: _Batch, plan: PrivacyPlan | None) -> Tensor:
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


def _share(batch: _Batch, plan: PrivacyPlan | None) -> Tensor | float:
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


def _batches(
    sizes: tuple[int, ...], task: TrainTask, plan: PrivacyPlan | None, streams: Sequence[Streams]
) -> list[list[Tensor]] | None:
    """Draw the row numbers of every step and site, ``[steps][S]``; None means all rows."""
    if task.sampling == "full":
        return None
    per_site = [_rows(n, task, plan, s) for n, s in zip(sizes, streams, strict=True)]
    return [[rows[step] for rows in per_site] for step in range(task.steps)]


def _rows(n: int, task: TrainTask, plan: PrivacyPlan | None, stream: Streams) -> list[Tensor]:
    if task.sampling == "poisson":
        rate = plan.sampling_rate if plan else min(1.0, task.batch_size / max(n, 1))
        drawn = stream.batches.random((task.steps, n)) < rate
        return [torch.from_numpy(row.nonzero()[0]) for row in drawn]
    size = min(task.batch_size, n)
    per_epoch = max(n // size, 1) if n else 1
    epochs = [stream.batches.permutation(n) for _ in range(-(-task.steps // per_epoch))]
    cut = [e[k * size : (k + 1) * size] for e in epochs for k in range(per_epoch)]
    return [torch.from_numpy(c) for c in cut[: task.steps]]
