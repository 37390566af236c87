"""Training of heads on cached features, with a leading site axis. The mathematics is written once.

``fit`` trains S linear heads on S sites. The heads are ``[S, C, d]``; the examples of a step are
rows, site after site, so one site is S = 1 and a cohort is S = N, of any sizes and without padding.
The site axis is walked in chunks: on a GPU the whole cohort at once, on a CPU as many sites as a
core's cache holds, on all cores. On a CPU a site's numbers do not depend on who else is in the
cohort, to the last bit: its matrix products are its own, and the rest works on single rows or
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedtl.errors import PrivacyError
from fedtl.privacy.clip import clip_residuals
from fedtl.privacy.release import Release
from fedtl.train.batches import Batch, Examples, batches, chunks
from fedtl.train.objectives.bound import Bound
from fedtl.train.objectives.guide import Guide
from fedtl.train.optim import Optimizer
from fedtl.train.streams import Streams, add_normal
from fedtl.train.task import TrainTask
from fedtl.train.threads import LARGE, spread

__all__ = ["Examples", "check_sampling", "fit", "gradient_deviation"]

_PRODUCT = 1 << 19
"""Multiplications in a site's product beyond which threads do not just wait for the interpreter."""


@torch.inference_mode()
def fit(
    heads: Tensor,
    sites: Sequence[Examples],
    *,
    task: TrainTask,
    release: Release | None,
    streams: Sequence[Streams],
    round_: int = 1,
    objective: Bound | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Train one linear softmax head per site for one round.

    The loss is the mean cross-entropy, or what an objective makes of it. Under privacy, every step
    releases the sum of the examples' clipped gradients plus Gaussian noise (Abadi et al. 2016,
    arXiv:1607.00133, alg. 1), divided by the publicly known expected batch; without one, the plain
    mean gradient of the batch.

    Parameters
    ----------
    heads : Tensor
        ``[S, C, d]`` float32 heads at the start of the round; left alone.
    sites : sequence of Examples
        One per head; sizes may differ.
    task : TrainTask
        Steps, batches and optimiser.
    release : Release or None
        What is released in every step; None trains without privacy. Where several sites share the
        noise out, the head is returned *without* any: :mod:`fedtl.site.seal` adds the site's share.
    streams : sequence of Streams
        One per head.
    round_ : int
        Server round from 1, for the learning-rate schedule.
    objective : Bound, optional
        A client-side step (:mod:`fedtl.train.objectives`) for all of the sites.
    chunk : int, optional
        Sites per tensor program; the default fits the device.

    Returns
    -------
    Tensor
        ``[S, C, d]`` trained heads.

    Raises
    ------
    PrivacyError
        The release does not cover the task: its sampling, or steps that need noise of their own.
    """
    check_sampling(task, release)
    trained = heads.new_empty(heads.shape)
    rule = objective.to(heads) if objective is not None else None
    if chunk is None and heads.device.type == "cpu":
        parts = list(chunks(sites, task))
    else:
        size = chunk or max(len(sites), 1)
        parts = [slice(start, start + size) for start in range(0, len(sites), size)]

    @torch.inference_mode()  # threads have modes of their own
    def train(part: slice) -> None:
        data = [site.to(heads.device) for site in sites[part]]
        if release is not None and release.unit_cap:
            data = [site.at_most(release.unit_cap) for site in data]
        own = rule.part(part) if rule is not None else None
        weights = trained[part].copy_(heads[part])
        with np.errstate(over="ignore", invalid="ignore"):
            _fit_chunk(weights, data, task, release, streams[part], round_, own)

    def is_large(part: slice) -> bool:
        return max(site.x.numel() for site in sites[part]) > LARGE

    small = [part for part in parts if not is_large(part)]
    product = sum(task.rows(len(site)) for site in sites) * heads[:1].numel()
    several = heads.device.type == "cpu" and product > _PRODUCT * len(sites)
    threads = torch.get_num_threads() if several else 1
    spread(train, small, threads=threads, size=2 * task.steps * product)
    for part in filter(is_large, parts):
        train(part)
    return trained


def gradient_deviation(release: Release) -> float:
    """Return the standard deviation of the noise on a mean gradient's entries."""
    return release.noise_multiplier * release.clip_norm / _expected_batch(release)


def check_sampling(task: TrainTask, release: Release | None) -> None:
    """Refuse what the release does not cover; at rate 1 a Poisson batch is full."""
    if release is None:
        return
    if task.epochs:
        raise PrivacyError(
            f"The plan counts steps, and the task asks for {task.epochs} passes over the data, "
            "whatever their number.",
            next_step="Set train.local_epochs = 0 and train.local_steps.",
            code="plan.mismatch",
        )
    if release.honest_sites and (task.steps > 1 or task.optimizer != "sgd"):
        raise PrivacyError(
            f"Noise is shared out over sites, and the task asks for {task.steps} steps of "
            f"{task.optimizer}: steps that follow noise of their own cannot share it.",
            next_step="Set train.local_steps = 1 and train.optimizer = 'sgd'; momentum and "
            "averages belong to the strategy.",
            code="plan.mismatch",
        )
    covered = ("full", "poisson") if release.sampling_rate == 1 else ("poisson",)
    if task.sampling not in covered or release.mechanism != "gradients":
        raise PrivacyError(
            f"The plan covers {' or '.join(covered)} batches of {release.mechanism}, the task asks "
            f"for {task.sampling} batches of gradients.",
            next_step="Set train.sampling to 'full' or 'poisson' and let the plan be made from it.",
            code="plan.mismatch",
        )


def _fit_chunk(
    weights: Tensor,
    sites: Sequence[Examples],
    task: TrainTask,
    release: Release | None,
    streams: Sequence[Streams],
    round_: int,
    objective: Bound | None,
) -> None:
    """Run the steps of one round on a chunk, heads ``[S, C, d]``, in place.

    No step makes an array of that size anew: the system would zero its pages every time.
    """
    guide = Guide.of(objective, weights)
    average: Tensor | None = None
    gradient = torch.empty_like(weights)
    optimizer = Optimizer(task)
    for step, batch in enumerate(batches(sites, task, release, streams)):
        _mean_gradient(weights, batch, release, guide, out=gradient)
        if release is not None and not release.honest_sites:
            add_normal(gradient, streams, gradient_deviation(release))
        if task.weight_decay:
            gradient.add_(weights, alpha=task.weight_decay)
        guide.correct(gradient, weights)
        optimizer.step(weights, gradient, task.lr_at(round_, step))
        guide.after_step(weights)
        if task.averaging:
            average = weights.clone() if average is None else average
            average.lerp_(weights, 1 - task.averaging)
    if average is not None:
        weights.copy_(average)


def _mean_gradient(
    weights: Tensor, batch: Batch, release: Release | None, guide: Guide, out: Tensor
) -> None:
    """Average each site's (clipped) gradients over its batch: ``[S, C, d]``."""
    share = _share(batch, release)
    for at, (residuals, part) in enumerate(_clipped_residuals(weights, batch, release, guide)):
        residuals.mul_(share)
        if at == 0:
            _outer(residuals, part.x, out)
        else:
            out.add_(_outer(residuals, part.x, torch.empty_like(out)))


def _clipped_residuals(
    weights: Tensor, batch: Batch, release: Release | None, guide: Guide
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield p - y of every block, scaled so that each example's or unit's gradient is bounded.

    Under a release, scores that overflow count nothing: a head that was sent to overflow on some
    features only would show by a NaN, through any noise, whether anyone has them.
    """
    if release is not None and batch.units is not None:
        blocks = list(batch.blocks())
        whole = torch.cat([_residuals(weights, part, guide) for part in blocks]).nan_to_num_(0.0)
        batch.units.clip(whole, release.clip_norm)
        parts = torch.split(whole, [len(part.y) for part in blocks])
        yield from zip(parts, blocks, strict=True)
        return
    for part in batch.blocks():
        residuals = _residuals(weights, part, guide)
        if release is not None:
            residuals.nan_to_num_(0.0)
        if release is not None and release.example_clip is not None and part.norms is not None:
            clip_residuals(residuals, part.norms, release.example_clip)
        yield residuals, part


def _residuals(weights: Tensor, part: Batch, guide: Guide) -> Tensor:
    """Return p - y, or an objective's own, ``[R, C]``, in float32 also for heads in float64."""
    heads = weights if weights.dtype == torch.float32 else weights.float()
    scores = _scores(heads, part.x)
    if (own := guide.residuals(scores, part.y)) is not None:
        return own
    residuals = torch.softmax(scores, dim=-1)
    return residuals.scatter_(-1, part.y.unsqueeze(-1), -1.0, reduce="add")


def _share(batch: Batch, release: Release | None) -> Tensor | float:
    """Return what an example counts in its site's mean: in a release, a public number divides."""
    if release is not None:
        return 1 / _expected_batch(release)
    shares = [1 / max(size, 1) for size in batch.sizes]
    if len(set(shares)) == 1:
        return shares[0]
    repeats = torch.tensor(batch.sizes, device=batch.y.device)
    return repeats.new_tensor(shares, dtype=torch.float32).repeat_interleave(repeats)[:, None]


def _expected_batch(release: Release) -> float:
    return release.sampling_rate * release.public_size


def _scores(weights: Tensor, x: Sequence[Tensor] | Tensor) -> Tensor:
    """Return every row's scores under its own site's head: ``[R, C]``.

    On a CPU NumPy multiplies: for such thin matrices its OpenBLAS takes a third of the time of
    torch's MKL on AMD processors.
    """
    if weights.device.type != "cpu":
        padded = pad_sequence(list(x), batch_first=True) @ weights.mT
        return torch.cat([rows[: len(part)] for rows, part in zip(padded, x, strict=True)])
    heads = weights.numpy()
    if isinstance(x, Tensor):  # NumPy multiplies the same matrices one by one
        return torch.from_numpy(np.matmul(x.numpy(), heads.transpose(0, 2, 1))).flatten(0, 1)
    parts = [np.matmul(part.numpy(), head.T) for part, head in zip(x, heads, strict=True)]
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _outer(residuals: Tensor, x: Sequence[Tensor] | Tensor, out: Tensor) -> Tensor:
    """Sum residual times features over each site's rows into ``out``: ``[S, C, d]``, its type."""
    if residuals.device.type != "cpu":
        parts = torch.split(residuals, [len(part) for part in x])
        padded = pad_sequence(list(parts), batch_first=True)
        rows_of_sites = pad_sequence(list(x), batch_first=True).to(out.dtype)
        return torch.matmul(padded.mT.to(out.dtype), rows_of_sites, out=out)
    rows, end = residuals.numpy() if out.dtype == torch.float32 else residuals.double().numpy(), 0
    if isinstance(x, Tensor):
        each = rows.reshape(*x.shape[:2], rows.shape[-1]).transpose(0, 2, 1)
        np.matmul(each, x.numpy(), out=out.numpy())
        return out
    for part, total in zip(x, out.numpy(), strict=True):
        begin, end = end, end + len(part)
        np.matmul(rows[begin:end].T, part.numpy(), out=total)
    return out
