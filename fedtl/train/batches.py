"""A site's examples, and the batches that are drawn from them for a chunk of sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.train.room import room
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.train.units import Units

ROWS_AT_ONCE = 2048
_CACHE = 1 << 19
"""Numbers in the batches of a chunk of sites on a CPU (2 MiB)."""
_IN_ONE_CALL = ("cpu", torch.float32)


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
    units : Units or None
        Which rows belong to one unit such as a patient, where the data say so.
    """

    x: Tensor
    y: Tensor
    norms: Tensor
    units: Units | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, groups: Sequence[str] | None = None) -> Examples:
        """Compute the norms once, in blocks of rows so that a mapped file is streamed."""
        parts = [rows.norm(dim=1) for rows in torch.split(x, ROWS_AT_ONCE)]
        units = None if groups is None else Units.of(x, groups)
        return cls(x, y, torch.cat(parts) if parts else x.new_zeros(0), units)

    def at_most(self, cap: int) -> Examples:
        """Return these examples without what is beyond the first ``cap`` of a unit.

        Raises
        ------
        PrivacyError
            The data do not say what belongs together.
        """
        units = units_of(self)
        rows = units.within(cap)
        if len(rows) == len(self):
            return self
        return Examples(self.x[rows], self.y[rows], self.norms[rows], units.taking(rows))

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.y.shape[0]  # torch's own len() takes four times as long

    def to(self, device: torch.device) -> Examples:
        """Return the same examples on a device; themselves if they are there."""
        if self.y.device == device:
            return self
        units = None if self.units is None else self.units.to(device)
        return Examples(self.x.to(device), self.y.to(device), self.norms.to(device), units)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's examples of a chunk of sites: ``R`` rows in all, site after site, never padded.

    Attributes
    ----------
    x : sequence of Tensor, or Tensor
        Each site's ``[n, d]`` features; ``[S, n, d]`` where all have as many rows in one place.
    y : Tensor
        ``[R]`` class indices.
    norms : Tensor or None
        ``[R]`` norms of the features, where single examples are clipped.
    units : Units or None
        The rows' units, where their sums are clipped.
    """

    x: Sequence[Tensor] | Tensor
    y: Tensor
    norms: Tensor | None
    units: Units | None = None

    @classmethod
    def of(
        cls, sites: Sequence[Examples], rows: Sequence[Tensor] | None, release: Release | None
    ) -> Batch:
        """Gather the sites' examples, or each site's chosen rows."""
        y = torch.cat(_chosen([s.y for s in sites], rows))
        x = _stacked([s.x for s in sites], rows)
        if release is None:
            return cls(x, y, None)
        if release.example_clip is not None:
            return cls(x, y, torch.cat(_chosen([s.norms for s in sites], rows)))
        units = [units_of(site) for site in sites]
        if rows is not None:
            units = [unit.taking(at) for unit, at in zip(units, rows, strict=True)]
        return cls(x, y, None, Units.joined(units))

    @property
    def sizes(self) -> list[int]:
        """Each site's number of rows."""
        if isinstance(self.x, Tensor):
            return [self.x.shape[1]] * self.x.shape[0]
        return [len(x) for x in self.x]

    def blocks(self) -> Iterator[Batch]:
        """Cut a large site into blocks of rows, so that they stay in the processor's cache."""
        if len(self.x) > 1 or len(self.y) <= ROWS_AT_ONCE:
            yield self
            return
        for at in range(0, len(self.y), ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            norms = None if self.norms is None else self.norms[part]
            yield Batch([self.x[0][part]], self.y[part], norms)


def _chosen(parts: list[Tensor], rows: Sequence[Tensor] | None) -> list[Tensor]:
    if rows is None:
        return parts
    return [part.index_select(0, at) for part, at in zip(parts, rows, strict=True)]


def _stacked(parts: list[Tensor], rows: Sequence[Tensor] | None) -> Sequence[Tensor] | Tensor:
    """Return chosen rows; where a CPU can multiply them in one call, until the next ones."""
    first = parts[0]
    if rows is None or len(parts) == 1 or (first.device.type, first.dtype) != _IN_ONE_CALL:
        return _chosen(parts, rows)
    n = rows[0].shape[0]
    if any(at.shape[0] != n for at in rows):
        return _chosen(parts, rows)
    out = room("batch", (len(parts), n, first.shape[1]), np.float32)
    for part, at, place in zip(parts, rows, out, strict=True):
        part.numpy().take(at.numpy(), axis=0, out=place, mode="clip")
    return torch.from_numpy(out)


def chunks(sites: Sequence[Examples], task: TrainTask) -> Iterator[slice]:
    """Cut a cohort into chunks whose batches fit the cache together; a large site is alone."""
    start = held = 0
    for end, site in enumerate(sites):
        blocked = len(site) > ROWS_AT_ONCE and task.sampling != "shuffle"
        size = _CACHE if blocked else task.rows(len(site)) * site.x.shape[1]
        if end > start and held + size > _CACHE:
            yield slice(start, end)
            start, held = end, 0
        held += size
    if sites:
        yield slice(start, len(sites))


def batches(
    sites: Sequence[Examples], task: TrainTask, release: Release | None, streams: Sequence[Streams]
) -> Iterator[Batch]:
    """Draw and gather the batch of every step of a round."""
    if task.sampling == "full":
        yield from repeat(Batch.of(sites, None, release), task.steps)
        return
    drawn = [_rows(x, task, release, s) for x, s in zip(sites, streams, strict=True)]
    for rows in zip(*drawn, strict=True):
        yield Batch.of(sites, rows, release)


def units_of(site: Examples) -> Units:
    """Return a site's units.

    Raises
    ------
    PrivacyError
        Its data do not say what belongs together.
    """
    if site.units is None:
        raise PrivacyError(
            "The plan protects groups, and the data have no group for each example.",
            next_step="Give the manifest a 'group' column, or set privacy.unit = 'example'.",
            code="plan.no-groups",
        )
    return site.units


def shares(examples: Examples, release: Release | None) -> Tensor:
    """Return what each example counts, ``[n]`` float64: 1 / m of a group of m, else 1.

    Raises
    ------
    PrivacyError
        With code ``plan.no-groups``.
    """
    if release is None or release.unit == "example":
        return torch.ones(len(examples), dtype=torch.float64)
    units = units_of(examples)
    return (1 / units.sizes.double())[units.of_row]


def _rows(
    site: Examples, task: TrainTask, release: Release | None, stream: Streams
) -> list[Tensor]:
    """Draw the row numbers of every step of one site."""
    n = len(site)
    if task.sampling == "poisson":
        rate = release.sampling_rate if release else min(1.0, task.batch_size / max(n, 1))
        if release is not None and release.unit == "group":
            units = units_of(site)
            in_batch = stream.batches.random((task.steps, units.count)) < rate
            drawn = in_batch[:, units.of_row.cpu().numpy()]
        else:
            drawn = stream.batches.random((task.steps, n)) < rate
        return [torch.from_numpy(row.nonzero()[0]) for row in drawn]
    size = min(task.batch_size, n)
    per_epoch = max(n // size, 1) if n else 1
    epochs = [stream.batches.permutation(n) for _ in range(-(-task.steps // per_epoch))]
    cut = [e[k * size : (k + 1) * size] for e in epochs for k in range(per_epoch)]
    return [torch.from_numpy(c) for c in cut[: task.steps]]
