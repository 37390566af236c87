"""Canaries: invented records, planted at random into a site's data and looked for in its releases.

The auditor plays the strongest opponent that a plan promises to withstand: a coordinator who knows
every real record, sends heads and a learning rate of his own choice, and sees every release. All he
does not know is which canaries were in: a fair coin each. The releases come from the code that
sites run, :func:`fedtl.train.fit.fit` and, in :mod:`fedtl.audit.sums`,
:func:`fedtl.train.additive.released`; what the auditor knows is computed apart from it, in the
obvious way.

Canaries lie in random directions, nearly at right angles to the data and, up to one per feature,
exactly so to each other. They are far longer than real records: clipping has to cut each of them
down to the clip norm in every release, the most a record may contribute. So each canary is a test
of its own of the full promise, and thousands fit into one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import idct
from torch import Tensor

from fedtl.audit.certify import Found, Scores
from fedtl.audit.shared import in_the_sum
from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.rng import stream
from fedtl.train.fit import Examples, fit, gradient_deviation
from fedtl.train.streams import SeededStreams, Streams
from fedtl.train.task import TrainTask

LEAST_CANARIES, MOST_CANARIES = 100, 10_000
EXCESS = 20.0
"""Length of a canary over the clip norm: a residual of 0.05 is enough for it to be clipped."""
_STEP = 0.01
"""Change of a canary's logits in one step of a round: next to none."""
RECORD_NORM = 1.01**0.5
"""Length of a real record: unit features and a bias feature of 0.1."""


def silent(phase: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Invented records.

    Attributes
    ----------
    examples : Examples
        All ``m`` of them, in or not.
    included : ndarray of bool
        ``[m]``, fair coins.
    """

    examples: Examples
    included: NDArray[np.bool_]

    @classmethod
    def invent(cls, m: int, width: int, classes: int, *, norm: float, seed: int) -> Canaries:
        """Draw ``m`` records of length ``norm`` with random labels, ``width`` at a time orthogonal.

        Raises
        ------
        PrivacyError
            There are too few to certify anything, or too many to hold in memory.
        """
        if not LEAST_CANARIES <= m <= MOST_CANARIES:
            raise PrivacyError(
                f"{m} canaries are too {'few' if m < LEAST_CANARIES else 'many'} for an audit.",
                next_step=f"Plant {LEAST_CANARIES} to {MOST_CANARIES:,}; 2,000 certify well.",
            )
        rng = stream(seed, "canaries")
        blocks = [_orthogonal(min(width, m - at), width, rng) for at in range(0, m, width)]
        x = np.concatenate(blocks) * np.float32(norm)
        y = rng.integers(0, classes, m)
        return cls(Examples.of(torch.from_numpy(x), torch.from_numpy(y)), rng.random(m) < 0.5)

    def planted(self, real: Examples) -> Examples:
        """Return real records followed by the canaries that are in."""
        chosen = torch.from_numpy(self.included.nonzero()[0])
        x, y = self.examples.x[chosen], self.examples.y[chosen]
        return Examples.of(torch.cat([real.x, x]), torch.cat([real.y, y]))


def _orthogonal(rows: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return random orthonormal rows: some of a cosine transform, with columns of random signs."""
    waves = np.zeros((rows, width), np.float32)
    waves[np.arange(rows), rng.permutation(width)[:rows]] = 1
    signs = rng.choice(np.array([-1, 1], np.float32), width)
    return np.asarray(idct(waves, axis=1, norm="ortho") * signs, np.float32)


def gradient_canaries(
    real: Examples,
    classes: int,
    *,
    task: TrainTask,
    release: Release | None,
    canaries: int,
    seed: int = 0,
    streams_of: Callable[[int], Streams] | None = None,
    progress: Callable[[str, int, int], None] = silent,
) -> Found:
    """Look for canaries in the gradients of a whole run.

    Parameters
    ----------
    real : Examples
        The site's own records.
    task : TrainTask
        Rounds, steps and sampling; what happens to a noisy gradient afterwards (momentum, decay,
        averages) tells the auditor nothing more and is left out.
    release : Release or None
        None audits a run without privacy.
    streams_of : callable, optional
        Random streams by round, from 1; seeded ones by default.

    Returns
    -------
    Found
        Two ways of looking: the sum over rounds, and the differences between rounds, in which
        noise that was used twice cancels. Noise that classes share cancels in both, since the
        residuals of an example sum to zero.
    """
    norm = EXCESS * release.clip_norm if release else RECORD_NORM
    made = Canaries.invent(canaries, real.x.shape[1], classes, norm=norm, seed=seed)
    examples = made.planted(real)
    look = _Look(made, real, release)
    own = TrainTask(
        rounds=task.rounds,
        steps=task.steps,
        sampling="full" if task.sampling == "shuffle" else task.sampling,
        batch_size=task.batch_size,
        lr=_learning_rate(release, norm=norm, n=len(examples)),
    )
    divisor = release.sampling_rate * release.public_size if release else float(len(examples))
    heads_from = stream(seed, "audit heads")
    for round_ in range(1, task.rounds + 1):
        drawn = heads_from.standard_normal((1, classes, real.x.shape[1])) / norm
        head = torch.from_numpy(drawn.astype(np.float32))
        streams = streams_of(round_) if streams_of else SeededStreams(seed, round_, "audit")
        after = _released(head, examples, own, release, streams, round_)
        released = (head[0].double() - after) * (divisor / own.lr / own.steps)
        look.at(head[0], released)
        progress("canaries", round_, task.rounds)
    return Found(made.included, look.scores())


def _released(
    head: Tensor,
    examples: Examples,
    task: TrainTask,
    release: Release | None,
    streams: Streams,
    round_: int,
) -> Tensor:
    """Return the head ``[C, d]`` that leaves the site, or the sum, after a round."""
    if release is None or not release.honest_sites:
        trained = fit(
            head, [examples], task=task, release=release, streams=[streams], round_=round_
        )
        return trained[0].double()
    (trained,) = fit(
        head.double(), [examples], task=task, release=release, streams=[streams], round_=round_
    )
    deviations = {"weight": task.lr * gradient_deviation(release)}
    return torch.from_numpy(
        in_the_sum({"weight": trained.numpy()}, deviations, release, streams)["weight"]
    )


def _learning_rate(release: Release | None, *, norm: float, n: int) -> float:
    """Return a rate so low that gradients hardly change within a round."""
    if release is None:
        return _STEP
    largest = release.clip_norm * max(release.noise_multiplier, 1.0) * norm
    return _STEP * release.sampling_rate * release.public_size / largest


class _Look:
    """Correlates each round's release with every canary's gradient."""

    def __init__(self, made: Canaries, real: Examples, release: Release | None) -> None:
        self._made, self._real = made, real
        self._clip = release.clip_norm if release else None
        self._rate = release.sampling_rate if release else 1.0
        self._x = made.examples.x.double()
        self._residuals: list[Tensor] = []
        self._surprises: list[Tensor] = []

    def at(self, head: Tensor, released: Tensor) -> None:
        """Take in one round: the head ``[C, d]`` and the mean of the sums released under it."""
        residuals = gradient_residuals(head, self._made.examples, self._clip)
        known = gradient_residuals(head, self._real, self._clip).T @ self._real.x.double()
        surprise = released / self._rate - residuals.T @ self._x / 2
        self._residuals.append(residuals)
        self._surprises.append(without(surprise, known))

    def scores(self) -> tuple[Scores, ...]:
        """Return the sum over rounds and, from two rounds on, the differences between them."""
        residuals, surprises = torch.stack(self._residuals, 1), torch.stack(self._surprises)
        ways = [self._fractions(residuals, surprises)]
        if len(surprises) > 1:
            residuals -= residuals.mean(1, keepdim=True)
            ways.append(self._fractions(residuals, surprises - surprises.mean(0)))
        return tuple(ways)

    def _fractions(self, residuals: Tensor, surprises: Tensor) -> Scores:
        """Return how much of each canary there is in the surprises: ``[m]``."""
        along = (residuals * torch.einsum("md,tcd->mtc", self._x, surprises)).sum((1, 2))
        own = residuals.square().sum((1, 2)) * self._x.square().sum(1)
        return np.asarray((along / own.clamp(min=1e-30) + 0.5).numpy())


def without(total: Tensor, known: Tensor) -> Tensor:
    """Take what is known out of a sum, however often it was counted in."""
    return total - (total * known).sum() / known.square().sum().clamp(min=1e-30) * known


def gradient_residuals(head: Tensor, examples: Examples, clip_norm: float | None) -> Tensor:
    """Return ``[n, C]`` float64 residuals r: the (clipped) gradient of an example is ``r xᵀ``."""
    x = examples.x.double()
    residuals: Tensor = torch.softmax(x @ head.double().T, dim=1)
    residuals[torch.arange(len(x)), examples.y] -= 1
    if clip_norm is None:
        return residuals
    norms = residuals.norm(dim=1) * x.norm(dim=1)
    shares: Tensor = clip_norm / norms.clamp(min=clip_norm)
    return residuals * shares[:, None]
