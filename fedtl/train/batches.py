"""A site's examples, and the batches that are drawn from them for a chunk of sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask

ROWS_AT_ONCE = 2048
_CACHE = 1 << 19
"""Numbers in the batches of a chunk of sites on a CPU (2 MiB)."""


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
        parts = [rows.norm(dim=1) for rows in torch.split(x, ROWS_AT_ONCE)]
        return cls(x, y, torch.cat(parts) if parts else x.new_zeros(0))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)

    def to(self, device: torch.device) -> Examples:
        """Return the same examples on a device; themselves if they are there."""
        if self.y.device == device:
            return self
        return Examples(self.x.to(device), self.y.to(device), self.norms.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of a chunk of sites, padded to the largest: ``[S, n, d]`` and ``[S, n]``."""

    x: Tensor
    y: Tensor
    norms: Tensor | None
    mask: Tensor | None
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sites: Sequence[Examples], rows: Sequence[Tensor] | None, *, norms: bool) -> Batch:
        """Gather the sites' examples, or each site's chosen rows; ``norms`` are for clipping."""
        sizes = tuple(len(part) for part in rows or sites)
        x, y = _gather([s.x for s in sites], rows), _gather([s.y for s in sites], rows)
        lengths = _gather([s.norms for s in sites], rows) if norms else None
        mask = None
        if min(sizes) < max(sizes):
            ends = torch.tensor(sizes, device=x.device)[:, None]
            mask = torch.arange(max(sizes), device=x.device) < ends
        return cls(x, y, lengths, mask, sizes)

    def blocks(self) -> Iterator[Batch]:
        """Cut into blocks of rows, so that what is computed from them stays small."""
        n = self.x.shape[1]
        if n <= ROWS_AT_ONCE:
            yield self
            return
        for at in range(0, n, ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            norms = None if self.norms is None else self.norms[:, part]
            mask = None if self.mask is None else self.mask[:, part]
            yield Batch(self.x[:, part], self.y[:, part], norms, mask, self.sizes)


def _gather(parts: Sequence[Tensor], rows: Sequence[Tensor] | None) -> Tensor:
    if rows is not None:
        parts = [part.index_select(0, at) for part, at in zip(parts, rows, strict=True)]
    if len(parts) == 1:
        return parts[0][None]
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def chunks(sites: Sequence[Examples], task: TrainTask) -> Iterator[slice]:
    """Cut a cohort for a CPU: neighbours share a chunk if their batches are equally large.

    Batches of unequal size would be padded, and a padded matrix product may sum in another order.
    """
    start = 0
    for end in range(1, len(sites) + 1):
        rows, width = sites[start].x.shape
        if task.sampling != "full":
            rows = min(rows, task.batch_size)
        if (
            end == len(sites)
            or task.sampling == "poisson"
            or len(sites[end]) != len(sites[start])
            or (end + 1 - start) * rows * width > _CACHE
        ):
            yield slice(start, end)
            start = end


def batches(
    sites: Sequence[Examples], task: TrainTask, plan: PrivacyPlan | None, streams: Sequence[Streams]
) -> Iterator[Batch]:
    """Draw and gather the batch of every step of a round."""
    clipped = plan is not None
    if task.sampling == "full":
        yield from repeat(Batch.of(sites, None, norms=clipped), task.steps)
        return
    drawn = [_rows(len(x), task, plan, s) for x, s in zip(sites, streams, strict=True)]
    for rows in zip(*drawn, strict=True):
        yield Batch.of(sites, rows, norms=clipped)


def _rows(n: int, task: TrainTask, plan: PrivacyPlan | None, stream: Streams) -> list[Tensor]:
    """Draw the row numbers of every step of one site."""
    if task.sampling == "poisson":
        rate = plan.sampling_rate if plan else min(1.0, task.batch_size / max(n, 1))
        drawn = stream.batches.random((task.steps, n)) < rate
        return [torch.from_numpy(row.nonzero()[0]) for row in drawn]
    size = min(task.batch_size, n)
    per_epoch = max(n // size, 1) if n else 1
    epochs = [stream.batches.permutation(n) for _ in range(-(-task.steps // per_epoch))]
    cut = [e[k * size : (k + 1) * size] for e in epochs for k in range(per_epoch)]
    return [torch.from_numpy(c) for c in cut[: task.steps]]
