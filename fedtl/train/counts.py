"""Counts of a site's examples: how a head answers on those held out, and labels to train on.

Under a plan, what is counted is one vector of which one unit moves a bounded part; the Gaussian
noise lies on its entries, and ratios are made from them afterwards, which costs no privacy.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.train.batches import Examples, units_of
from fedtl.train.heads import logits
from fedtl.train.streams import Streams
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import Arrays, Evaluation

METRICS_NORM = math.sqrt(2)
"""L2 bound of what one unit adds to :func:`metrics_vector`."""
LABELS_NORM = 1.0
"""L2 bound of what one unit adds to the counts of labels."""
_SPLIT = math.sqrt(0.5)
"""Weight of losses and of the confusion where both are asked for: together they weigh 1."""


def loss_bound(classes: int) -> float:
    """Return the public bound of an example's loss under a plan: twice that of a blind guess."""
    return 2 * math.log(max(classes, 2))


def shares(examples: Examples, release: Release | None) -> torch.Tensor:
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


def evaluate(
    head: Arrays,
    examples: Examples,
    classes: int,
    *,
    release: Release | None = None,
    streams: Streams | None = None,
    confusion: bool = True,
) -> Evaluation:
    """Evaluate a head on held-out examples; noised if there is a release.

    Parameters
    ----------
    release : Release, optional
        Every entry of :func:`metrics_vector` gets Gaussian noise of ``noise_multiplier *
        clip_norm``. Losses are cut off at :func:`loss_bound`.
    streams : Streams, optional
        For that noise.
    confusion : bool
        Whether the confusion is counted as well.

    Raises
    ------
    PrivacyError
        The release is none of metrics, its bound is below sqrt(2), or there are no streams.
    """
    if release is None:
        counts, losses = _counted(head, examples, classes, shares(examples, None), math.inf)
        right = float(np.trace(counts))
        return Evaluation(float(counts.sum()) - right, right, losses, counts if confusion else None)
    _check(release, "metrics", METRICS_NORM)
    vector = metrics_vector(head, examples, classes, release=release, confusion=confusion)
    vector += _noise(release, streams, len(vector))
    return _read(vector, classes, confusion=confusion)


def metrics_vector(
    head: Arrays, examples: Examples, classes: int, *, release: Release, confusion: bool
) -> NDArray[np.float64]:
    """Return what a release of metrics is made of, before its noise.

    Wrong and right answers and the sum of losses in units of their bound: one example adds 1 to one
    of the counts and at most 1 to the losses, so the vector moves by at most sqrt(2). Where the
    confusion follows, its counts and the losses are scaled by sqrt(1/2), so that the bound stays
    and the first two entries, of which accuracies are made, carry the same noise as ever: sums over
    cells would carry that of all cells. A group adds an average over its examples.

    Returns
    -------
    NDArray
        ``[3]``, or ``[3 + C²]``.
    """
    share, bound = shares(examples, release), loss_bound(classes)
    counts, losses = _counted(head, examples, classes, share, bound)
    right = float(np.trace(counts))
    vector = np.array([float(counts.sum()) - right, right, losses / bound])
    if not confusion:
        return vector
    return np.concatenate([vector[:2], _SPLIT * vector[2:], _SPLIT * counts.ravel()])


def _read(vector: NDArray[np.float64], classes: int, *, confusion: bool) -> Evaluation:
    scale = _SPLIT if confusion else 1.0
    cells = vector[3:].reshape(classes, classes) / scale if confusion else None
    losses = float(vector[2]) / scale * loss_bound(classes)
    return Evaluation(float(vector[0]), float(vector[1]), losses, cells)


@torch.inference_mode()
def _counted(
    head: Arrays, examples: Examples, classes: int, share: torch.Tensor, bound: float
) -> tuple[NDArray[np.float64], float]:
    """Return the confusion and the sum of losses, in blocks of rows."""
    cells = torch.zeros(classes * classes, dtype=torch.float64)
    total = 0.0
    blocks = (torch.split(part, 4096) for part in (examples.x, examples.y, share))
    with one_thread(unless=examples.x.numel() > LARGE):
        for x, y, weight in zip(*blocks, strict=True):
            scores = logits(head, x)
            losses = torch.nn.functional.cross_entropy(scores, y, reduction="none").double()
            if bound < math.inf:  # scores that overflow give nan, which would show through noise
                losses = losses.nan_to_num(bound, bound, bound).clamp(0, bound)
            total += float((losses * weight).sum())
            at = y * classes + scores.argmax(1)
            cells += torch.bincount(at, weight, minlength=classes**2)
    return cells.view(classes, classes).numpy(), total


def label_counts(
    examples: Examples,
    classes: int,
    *,
    release: Release | None = None,
    streams: Streams | None = None,
) -> NDArray[np.float64]:
    """Count the examples of each class, ``[C]``; noised if there is a release.

    One unit adds at most 1, in one class or spread over several.

    Raises
    ------
    PrivacyError
        The release is none of labels, its bound is below 1, or there are no streams.
    """
    counts: NDArray[np.float64] = torch.bincount(
        examples.y, shares(examples, release), minlength=classes
    ).numpy()
    if release is None:
        return counts
    _check(release, "labels", LABELS_NORM)
    return counts + _noise(release, streams, classes)


def _check(release: Release, mechanism: str, norm: float) -> None:
    if release.mechanism != mechanism or release.clip_norm < norm:
        raise PrivacyError(
            f"A release of {release.mechanism} with the bound {release.clip_norm:g} does not cover "
            f"{mechanism}, of which one unit moves up to {norm:.4g}.",
            next_step=f"Make a plan with a release of mechanism='{mechanism}' and that clip_norm.",
            code="plan.mismatch",
        )


def _noise(release: Release, streams: Streams | None, n: int) -> NDArray[np.float64]:
    if streams is None:
        raise PrivacyError(
            f"A private release of {release.mechanism} needs streams for its noise.",
            next_step="Pass the site's streams.",
        )
    scale = release.noise_multiplier * release.clip_norm
    noise: NDArray[np.float64] = scale * streams.normal((n,)).double().numpy()
    return noise
