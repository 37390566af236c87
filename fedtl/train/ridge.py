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
from fedtl.privacy.release import Release
from fedtl.train.batches import Examples
from fedtl.train.counts import shares
from fedtl.train.streams import Streams

Statistics = Mapping[str, NDArray[np.float64]]


def statistics(
    examples: Examples,
    classes: int,
    *,
    release: Release | None = None,
    streams: Streams | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute a site's statistics in float64, noised by the release's plan if there is one.

    Parameters
    ----------
    examples : Examples
        ``n`` examples with ``d`` features.
    release : Release, optional
        Rows are clipped to its ``clip_norm`` R. Adding or removing one example moves (G / R²,
        B / R) by at most sqrt(2), so both get Gaussian noise of ``noise_multiplier * sqrt(2)`` in
        these units as one joint release; G's noise is symmetric. Where several sites share the
        noise out, none is added here. With unit ``group``, every example of a group of m counts
        1 / m, so that a group moves the sums no further than one example does.

    Returns
    -------
    dict
        ``gram`` [d (d + 1) / 2], the upper triangle of Σ x xᵀ by rows, and ``moment`` [d, C],
        Σ x one_hot(y)ᵀ.
    """
    d = examples.x.shape[1]
    gram = torch.zeros(d, d, dtype=torch.float64)
    moment = torch.zeros(d, classes, dtype=torch.float64)
    counted_as = shares(examples, release)
    blocks = (torch.split(t, 4096) for t in (examples.x, examples.y, examples.norms, counted_as))
    for x, y, norms, share in zip(*blocks, strict=True):
        rows = x.double()
        if release is not None:
            rows = rows * (release.clip_norm / norms.double().clamp(min=release.clip_norm))[:, None]
        counted = rows * share[:, None]
        gram.addmm_(rows.T, counted)
        moment.index_add_(1, y, counted.T)
    upper = torch.triu_indices(d, d)
    out = {"gram": gram[upper[0], upper[1]].numpy(), "moment": moment.numpy()}
    if release is not None and not release.honest_sites:
        _add_noise(out, release, streams, d)
    return out


def deviations(release: Release, width: int) -> dict[str, NDArray[np.float64] | float]:
    """Return the standard deviation of the noise on every entry of a release of statistics.

    The noise of the Gram matrix is (Z + Zᵀ) / 2: off-diagonal pairs count twice in the norm and
    carry the deviation divided by sqrt(2).

    Raises
    ------
    PrivacyError
        With code ``plan.mismatch``: it is a release of something else.
    """
    if release.mechanism != "statistics":
        raise PrivacyError(
            f"A release of {release.mechanism} does not cover statistics.",
            next_step="Make a plan with a release of mechanism='statistics'.",
            code="plan.mismatch",
        )
    scale = release.noise_multiplier * math.sqrt(2)
    rows, columns = np.triu_indices(width)
    off = np.where(rows == columns, 1.0, math.sqrt(0.5))
    return {"gram": off * scale * release.clip_norm**2, "moment": scale * release.clip_norm}


def _add_noise(
    stats: dict[str, NDArray[np.float64]], release: Release, streams: Streams | None, width: int
) -> None:
    if streams is None:
        raise PrivacyError(
            "A private release of statistics needs streams for its noise.",
            next_step="Pass the site's streams.",
        )
    for name, deviation in deviations(release, width).items():
        stats[name] += streams.normal(stats[name].shape).double().numpy() * deviation


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
