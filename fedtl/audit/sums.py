"""Canaries in sums over examples: statistics, means and second moments, each released once."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtl.audit.canaries import EXCESS, RECORD_NORM, Canaries, without
from fedtl.audit.certify import Found, Scores
from fedtl.audit.shared import in_the_sum
from fedtl.privacy.plan import Release
from fedtl.train.additive import deviations, released
from fedtl.train.fit import Examples
from fedtl.train.ridge import unpack
from fedtl.train.streams import SeededStreams, Streams


def sums_canaries(
    real: Examples,
    classes: int,
    *,
    mechanism: str = "statistics",
    release: Release | None,
    canaries: int,
    seed: int = 0,
    streams: Streams | None = None,
) -> Found:
    """Look for canaries in one release of sums.

    In statistics it looks in two ways: at Gram matrix and class sums together, and at a class's sum
    against those of the other classes, in which noise that classes share cancels.

    Parameters
    ----------
    mechanism : {"statistics", "mean", "covariance"}
        What is summed; see :mod:`fedtl.train.additive`.
    """
    radius = release.clip_norm if release else RECORD_NORM
    norm = EXCESS * radius if release else radius
    made = Canaries.invent(canaries, real.x.shape[1], classes, norm=norm, seed=seed)
    streams = streams or SeededStreams(seed, 1, "audit")
    told = released(
        made.planted(real), classes, mechanism=mechanism, release=release, streams=streams
    )
    if release is not None and release.honest_sites:
        told = in_the_sum(told, deviations(release, real.x.shape[1], mechanism), release, streams)
    found = {name: torch.from_numpy(values) for name, values in told.items()}
    if mechanism == "statistics":
        found["gram"] = torch.from_numpy(unpack(told["gram"]))
        return Found(made.included, _in_statistics(found, made, real, classes, radius))
    u, known = (_clipped(part.x[:, :-1], radius, release) for part in (made.examples, real))
    if mechanism == "mean":
        surprise = without(found["sum"] - u.sum(0) / 2, known.sum(0))
        return Found(made.included, ((u @ surprise / radius**2 + 0.5).numpy(),))
    gram = without(torch.from_numpy(unpack(told["gram"])) - u.T @ u / 2, known.T @ known)
    return Found(made.included, ((((u @ gram) * u).sum(1) / radius**4 + 0.5).numpy(),))


def _in_statistics(
    found: dict[str, Tensor], made: Canaries, real: Examples, classes: int, radius: float
) -> tuple[Scores, ...]:
    """Return both ways of looking at Gram matrix and class sums."""
    x, known = (_clipped(part.x, radius, radius) for part in (made.examples, real))
    labels, known_labels = (
        torch.nn.functional.one_hot(y, classes).double() for y in (made.examples.y, real.y)
    )
    gram = without(found["gram"] - x.T @ x / 2, known.T @ known)
    moment = without(found["moment"] - x.T @ labels / 2, known.T @ known_labels)
    x = x / radius
    squares, sums = ((x @ (gram / radius**2)) * x).sum(1), x @ (moment / radius)
    own = sums[torch.arange(len(x)), made.examples.y]
    others = (sums.sum(1) - own) / max(classes - 1, 1)
    return ((squares + own) / 2 + 0.5).numpy(), (own - others + 0.5).numpy()


def _clipped(x: Tensor, radius: float, release: object) -> Tensor:
    rows = x.double()
    if release is None:
        return rows
    clipped: Tensor = rows * (radius / rows.norm(dim=1, keepdim=True).clamp(min=radius))
    return clipped
