"""Membership inference by likelihood ratios: LiRA (Carlini et al. 2022, arXiv:2112.03570).

Many shadow heads are trained at once, each on a random half of the same examples, as the site axis
of :func:`fedtl.train.fit.fit`. How sure a head is of an example's label (the logit of its
probability) is then known for heads that saw the example and for heads that did not; a target head
is judged by which of both its own sureness resembles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.rng import stream
from fedtl.train.fit import Examples, fit
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask

LEAST_SHADOWS = 16
_AT_ONCE = 32
_OWN_VARIANCE_FROM = 64
"""Shadow heads from which each example gets variances of its own, as in the paper's code."""

Matrix = NDArray[np.float64]
Members = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shadows:
    """Shadow heads, seen through their sureness.

    Attributes
    ----------
    sureness : ndarray of float
        ``[S, n]``, log(p / (1 - p)) of the true class of example i under head s.
    members : ndarray of bool
        ``[S, n]``, whether head s was trained on example i.
    """

    sureness: Matrix
    members: Members


@dataclass(frozen=True, slots=True)
class Attack:
    """How well members are told from others.

    Attributes
    ----------
    auc : float
        Area under the ROC curve; 0.5 is chance.
    tpr_at_01, tpr_at_1 : float
        Share of members found at 0.1 % and at 1 % false alarms.
    fpr, tpr : ndarray of float
        The ROC curve.
    """

    auc: float
    tpr_at_01: float
    tpr_at_1: float
    fpr: Matrix
    tpr: Matrix


def train_shadows(
    examples: Examples,
    classes: int,
    *,
    task: TrainTask,
    release: Release | None,
    shadows: int,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Shadows:
    """Train shadow heads as a site would train alone, through all rounds of a run.

    Parameters
    ----------
    examples : Examples
        ``n`` examples; each head is trained on a random half of them.
    shadows : int
        Number of heads, at least 16.

    Raises
    ------
    PrivacyError
        There are too few heads or examples.
    """
    n = len(examples)
    if shadows < LEAST_SHADOWS or n < 4:
        raise PrivacyError(
            f"{shadows} shadow heads on {n} examples are too few to attack with.",
            next_step=f"Train at least {LEAST_SHADOWS} heads; 256 are of use.",
        )
    members = stream(seed, "shadows").random((shadows, n)) < 0.5
    sureness = np.empty((shadows, n))
    for start in range(0, shadows, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, shadows))
        halves = [_chosen(examples, member) for member in members[part]]
        heads = torch.zeros(len(halves), classes, examples.x.shape[1])
        for round_ in range(1, task.rounds + 1):
            names = [f"shadow-{at}" for at in range(part.start, part.stop)]
            streams = [SeededStreams(seed, round_, name) for name in names]
            heads = fit(heads, halves, task=task, release=release, streams=streams, round_=round_)
        sureness[part] = [sureness_of(head, examples) for head in heads]
        progress("shadow heads", part.stop, shadows)
    return Shadows(sureness, members)


def _chosen(examples: Examples, member: NDArray[np.bool_]) -> Examples:
    rows = torch.from_numpy(member.nonzero()[0])
    return Examples(examples.x[rows], examples.y[rows], examples.norms[rows])


def sureness_of(head: torch.Tensor, examples: Examples) -> Matrix:
    """Return ``[n]``: log(p / (1 - p)) of each example's true class under a head ``[C, d]``."""
    logs = torch.log_softmax((examples.x @ head.T).double(), dim=1)
    rows = torch.arange(len(examples))
    true = logs[rows, examples.y]
    logs[rows, examples.y] = -torch.inf
    return np.asarray((true - torch.logsumexp(logs, dim=1)).numpy())


def attack(shadows: Shadows, *, online: bool = True, fixed_variance: bool | None = None) -> Attack:
    """Attack an eighth of the heads with the others.

    Parameters
    ----------
    online : bool
        Use the shadow heads that saw an example as well as those that did not; the offline attack,
        which can prepare everything beforehand, uses the latter only.
    fixed_variance : bool, optional
        One variance for all examples; by default below 64 shadow heads.
    """
    targets = max(len(shadows.members) // 8, 1)
    known = Shadows(shadows.sureness[targets:], shadows.members[targets:])
    fixed = len(known.members) < _OWN_VARIANCE_FROM if fixed_variance is None else fixed_variance
    score = ratios(known, shadows.sureness[:targets], online=online, fixed_variance=fixed)
    return judge(score, shadows.members[:targets])


def ratios(
    known: Shadows, sureness: Matrix, *, online: bool = True, fixed_variance: bool = False
) -> Matrix:
    """Return ``[T, n]`` log likelihood ratios of "was a member" for targets' sureness ``[T, n]``.

    Offline it is the log of the probability that a head that never saw the example is less sure.
    """
    inside, outside = (_normal(known, member, fixed_variance) for member in (True, False))
    if not online:
        from scipy.special import log_ndtr

        return np.asarray(log_ndtr((sureness - outside[0]) / outside[1]))
    return _log_density(sureness, *inside) - _log_density(sureness, *outside)


def _normal(known: Shadows, member: bool, fixed: bool) -> tuple[Matrix, Matrix]:
    """Return each example's median and standard deviation over the heads on one side."""
    values = np.where(known.members == member, known.sureness, np.nan)
    lonely = np.isnan(values).all(axis=0)
    values[:, lonely] = known.sureness[:, lonely]
    centre = np.nanmedian(values, axis=0)
    spread = np.full_like(centre, np.nanstd(values)) if fixed else np.nanstd(values, axis=0)
    return centre, spread + 1e-6


def _log_density(x: Matrix, centre: Matrix, spread: Matrix) -> Matrix:
    return np.asarray(-(((x - centre) / spread) ** 2) / 2 - np.log(spread))


def judge(scores: Matrix, members: Members) -> Attack:
    """Compare scores with the truth; equal scores make one step of the ROC curve.

    Examples
    --------
    >>> import numpy as np
    >>> judge(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False])).auc
    0.75
    """
    flat, truth = np.ravel(scores), np.ravel(members)
    order = np.argsort(-flat, kind="stable")
    ends = np.append(np.diff(flat[order]) != 0, True)
    hits, alarms = np.cumsum(truth[order])[ends], np.cumsum(~truth[order])[ends]
    tpr = np.append(0.0, hits / max(int(truth.sum()), 1))
    fpr = np.append(0.0, alarms / max(int((~truth).sum()), 1))
    at_01, at_1 = (float(tpr[fpr <= level].max()) for level in (0.001, 0.01))
    return Attack(float(np.trapezoid(tpr, fpr)), at_01, at_1, fpr, tpr)


def most_tpr(fpr: float, *, epsilon: float, delta: float) -> float:
    """Return the highest true positive rate that (epsilon, delta)-DP allows.

    Source: Kairouz, Oh & Viswanath 2015, arXiv:1311.0776.
    """
    return float(min(1.0, np.exp(epsilon) * fpr + delta, 1 - np.exp(-epsilon) * (1 - delta - fpr)))
