"""Counts of a site's examples: how a head answers on those held out, and labels to train on.

Under a plan, what is counted is one vector of which one unit moves a bounded part; ratios are made
from it after its noise, which costs no privacy. Counts are whole numbers, so noise of ordinary
floating-point numbers would give them away: subtract the right count, and what is left is a number
that the sampler can return (Mironov 2012). Here all is whole: counts in steps of 2^-30, and
discrete Gaussian noise on them (:mod:`fedtl.privacy.discrete`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.errors import PrivacyError
from fedtl.privacy.discrete import whole_noise
from fedtl.privacy.release import Release
from fedtl.train.batches import Examples, shares
from fedtl.train.heads import logits
from fedtl.train.streams import Streams
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import Arrays, Evaluation

METRICS_NORM = math.sqrt(2)
"""L2 bound of what one unit adds to :func:`metrics_vector`."""
LABELS_NORM = 1.0
"""L2 bound of what one unit adds to the counts of labels."""
STEP = 2.0**-30
"""Of whole-number counts; shares and losses are rounded down to it, and bounds stay bounds."""
_ROWS = 4096
_SPLIT = math.sqrt(0.5)
"""Weight of losses and of the confusion where both are asked for: together they weigh 1."""


def loss_bound(classes: int) -> float:
    """Return the public bound of an example's loss under a plan: twice that of a blind guess."""
    return 2 * math.log(max(classes, 2))


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
        Every entry of :func:`metrics_vector` gets (discrete) Gaussian noise of ``noise_multiplier
        * clip_norm``. Losses are cut off at :func:`loss_bound`.
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
        return _exact(head, examples, classes, confusion=confusion)
    _check(release, "metrics", METRICS_NORM)
    whole = _whole(head, examples, classes, release, confusion=confusion)
    noised = _real(whole + _noise(release, streams, _weights(len(whole))))
    cells = noised[3:].reshape(classes, classes) if confusion else None
    wrong, right, losses = noised[:3].tolist()
    return Evaluation(wrong, right, losses * loss_bound(classes), cells)


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
    whole = _whole(head, examples, classes, release, confusion=confusion)
    return _real(whole) * _weights(len(whole))


def _real(steps: NDArray[np.int64]) -> NDArray[np.float64]:
    return steps.astype(np.float64) * STEP


def _weights(n: int) -> NDArray[np.float64]:
    """Return the scale of every entry: less than 1 only where the confusion is among them."""
    return np.array([1.0, 1.0, *[_SPLIT if n > 3 else 1.0] * (n - 2)])


def _exact(head: Arrays, examples: Examples, classes: int, *, confusion: bool) -> Evaluation:
    cells, total = torch.zeros(classes**2, dtype=torch.int64), 0.0
    for _, at, losses in _answers(head, examples, classes):
        cells += torch.bincount(at, minlength=classes**2)
        total += float(losses.double().sum())
    counts = cells.double().view(classes, classes).numpy()
    right = float(np.trace(counts))
    return Evaluation(float(counts.sum()) - right, right, total, counts if confusion else None)


def _whole(
    head: Arrays, examples: Examples, classes: int, release: Release, *, confusion: bool
) -> NDArray[np.int64]:
    """Return wrong, right, losses in units of their bound, and the confusion, in steps."""
    share, bound = (shares(examples, release) / STEP).long(), loss_bound(classes)
    cells, total = torch.zeros(classes**2, dtype=torch.int64), 0
    for rows, at, losses in _answers(head, examples, classes):
        # scores that overflow give nan, which would show through any noise
        part = losses.double().nan_to_num(bound, bound, bound).clamp(0, bound) / bound
        total += int((part * share[rows]).long().sum())
        cells.index_add_(0, at, share[rows])
    counts = cells.view(classes, classes).numpy()
    right = int(np.trace(counts))
    first = np.array([int(counts.sum()) - right, right, total])
    return np.concatenate([first, counts.ravel()]) if confusion else first


@torch.inference_mode()
def _answers(
    head: Arrays, examples: Examples, classes: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield blocks of rows, with their cells of the confusion and their losses."""
    with one_thread(unless=examples.x.numel() > LARGE):
        for start in range(0, len(examples), _ROWS):
            rows = slice(start, start + _ROWS)
            y, scores = examples.y[rows], logits(head, examples.x[rows])
            losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
            yield rows, y * classes + scores.argmax(1), losses


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
    if release is None:
        exact: NDArray[np.float64] = torch.bincount(examples.y, minlength=classes).double().numpy()
        return exact
    _check(release, "labels", LABELS_NORM)
    share = (shares(examples, release) / STEP).long()
    whole = torch.zeros(classes, dtype=torch.int64).index_add_(0, examples.y, share).numpy()
    return _real(whole + _noise(release, streams, np.ones(classes)))


def _check(release: Release, mechanism: str, norm: float) -> None:
    if release.mechanism != mechanism or release.clip_norm < norm:
        raise PrivacyError(
            f"A release of {release.mechanism} with the bound {release.clip_norm:g} does not cover "
            f"{mechanism}, of which one unit moves up to {norm:.4g}.",
            next_step=f"Make a plan with a release of mechanism='{mechanism}' and that clip_norm.",
            code="plan.mismatch",
        )


def _noise(
    release: Release, streams: Streams | None, weights: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Draw the noise of every entry, in steps; what weighs less carries as much more."""
    if streams is None:
        raise PrivacyError(
            f"A private release of {release.mechanism} needs streams for its noise.",
            next_step="Pass the site's streams.",
        )
    return whole_noise(release.noise_multiplier * release.clip_norm / weights, STEP, streams.words)
