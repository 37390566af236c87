"""Additive sufficient statistics of least squares, and the head they give in closed form.

Every statistic is a sum over examples, so the sum over sites equals the statistic of the pooled
data for any split and any order. A ridge head needs nothing else (FED3R: Fani et al.,
ICML 2024, arXiv:2406.01116).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.errors import PrivacyError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.batches import units_of
from fedtl.train.fit import Examples
from fedtl.train.streams import Streams

Statistics = Mapping[str, NDArray[np.float64]]


def statistics(
    examples: Examples,
    classes: int,
    *,
    plan: PrivacyPlan | None = None,
    streams: Streams | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute a site's statistics in float64, noised if there is a plan.

    Parameters
    ----------
    examples : Examples
        ``n`` examples with ``d`` features.
    plan : PrivacyPlan, optional
        With unit ``group``, every example of a group of m counts 1 / m, so that a group moves the
        sums no further than one example does.
        Rows are clipped to ``plan.clip_norm`` R. Adding or removing one example moves (G / R², B /
        R) by at most sqrt(2), so both get Gaussian noise of ``noise_multiplier * sqrt(2)`` in these
        units as one joint release; G's noise is symmetric.

    Returns
    -------
    dict
        ``gram`` [d (d + 1) / 2], the upper triangle of Σ x xᵀ by rows, and ``moment`` [d, C],
        Σ x one_hot(y)ᵀ.
    """
    d = examples.x.shape[1]
    gram = torch.zeros(d, d, dtype=torch.float64)
    moment = torch.zeros(d, classes, dtype=torch.float64)
    shares = _shares(examples, plan)
    blocks = (torch.split(t, 4096) for t in (examples.x, examples.y, examples.norms, shares))
    for x, y, norms, share in zip(*blocks, strict=True):
        rows = x.double()
        if plan is not None:
            rows = rows * (plan.clip_norm / norms.double().clamp(min=plan.clip_norm))[:, None]
        counted = rows * share[:, None]
        gram.addmm_(rows.T, counted)
        moment.index_add_(1, y, counted.T)
    upper = torch.triu_indices(d, d)
    out = {"gram": gram[upper[0], upper[1]].numpy(), "moment": moment.numpy()}
    if plan is not None:
        _add_noise(out, plan, streams, diagonal=(upper[0] == upper[1]).numpy())
    return out


def _shares(examples: Examples, plan: PrivacyPlan | None) -> torch.Tensor:
    """Return what each row counts, ``[n]``."""
    if plan is None or plan.unit == "example":
        return torch.ones(len(examples), dtype=torch.float64)
    units = units_of(examples)
    return (1 / units.sizes.double())[units.of_row]


def _add_noise(
    stats: dict[str, NDArray[np.float64]],
    plan: PrivacyPlan,
    streams: Streams | None,
    *,
    diagonal: NDArray[np.bool_],
) -> None:
    if streams is None or plan.mechanism != "statistics" or plan.sampling_rate != 1:
        raise PrivacyError(
            "The plan does not cover a release of statistics.",
            next_step="Make a plan with mechanism='statistics' and full batches.",
            code="plan.mismatch",
        )
    scale = plan.noise_multiplier * math.sqrt(2)
    noise = streams.normal(stats["gram"].shape).double().numpy()
    # (Z + Zᵀ) / 2: the off-diagonal pairs count twice in the norm and carry sd / sqrt(2)
    stats["gram"] += noise * np.where(diagonal, 1.0, math.sqrt(0.5)) * scale * plan.clip_norm**2
    stats["moment"] += (
        streams.normal(stats["moment"].shape).double().numpy() * scale * plan.clip_norm
    )


def add(parts: list[Statistics]) -> dict[str, NDArray[np.float64]]:
    """Add statistics of disjoint examples."""
    return {name: np.sum([p[name] for p in parts], axis=0) for name in parts[0]}


def unpack(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric ``[d, d]`` matrix of an upper triangle ``[d (d + 1) / 2]``."""
    d = (math.isqrt(8 * len(upper) + 1) - 1) // 2
    full = np.zeros((d, d))
    full[np.triu_indices(d)] = upper
    return full + np.triu(full, 1).T


def ridge_head(
    stats: Statistics, *, ridge: float, noise_sd: float = 0.0, normalise: bool = False
) -> NDArray[np.float64]:
    """Solve (G + λ I) Wᵀ = B for the head ``[C, d]``.

    Parameters
    ----------
    ridge : float
        λ.
    noise_sd : float
        Standard deviation of the noise on the diagonal of G (0 without privacy). λ is then raised
        to the spectral norm of the noise, ``noise_sd * sqrt(2 d)``, below which G says nothing.
    normalise : bool
        Scale each class's weights to unit length, as FED3R does against label skew.
    """
    gram = unpack(stats["gram"])
    d = len(gram)
    strength = max(ridge, noise_sd * math.sqrt(2 * d))
    if noise_sd:
        values, vectors = np.linalg.eigh(gram)
        inverse = vectors / (values.clip(min=0) + strength) @ vectors.T
        weights = (inverse @ stats["moment"]).T
    else:
        weights = np.linalg.solve(gram + strength * np.eye(d), stats["moment"]).T
    if normalise:
        weights = weights / np.linalg.norm(weights, axis=1, keepdims=True).clip(min=1e-12)
    return np.asarray(weights, np.float64)
