"""What one step of expectation maximisation needs of the sites: moments by class and component."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedtl.train.objectives.objective import Shapes
from fedtl.train.objectives.statistic import LocalStatistic

WEIGHTS, MEANS, VARIANCES = "weights", "means", "variances"


class MixtureMoments(LocalStatistic):
    """Responsibilities r, r x and r x² of the K Gaussians of an example's class.

    They add up: the next mixture is that of the pooled data, for any split. Features are without
    the bias; their squares are multiplied by :func:`stretch`, so that they are about as long as the
    features themselves, which have length one, and their noise counts for less. Clipping a row
    scales all of it: the example counts less, and means stay means.

    Parameters
    ----------
    components : int
        K, from 1.
    """

    by_class = True

    def __init__(self, *, components: int = 2) -> None:
        if components < 1:
            raise ValueError(f"components = {components} must be at least 1")
        self.components = components

    def size(self, width: int, classes: int) -> int:
        """Return C K (1 + 2 d), for d features without the bias."""
        return classes * self.components * (2 * width - 1)

    def sends(self, width: int, classes: int) -> Shapes:
        """Return the shapes of a mixture: weights ``[C, K]``, means and variances ``[C, K, d]``."""
        moments = (classes, self.components, width - 1)
        return {WEIGHTS: moments[:2], MEANS: moments, VARIANCES: moments}

    def rows_beside(self, x: Tensor, y: Tensor, classes: int, sent: Mapping[str, Tensor]) -> Tensor:
        """Return r, r x and r x² for each component, one after the other: ``[n, K (1 + 2 d)]``."""
        u = x[:, :-1]
        r = torch.softmax(log_densities(u, y, sent), dim=1)
        told = torch.cat([torch.ones_like(u[:, :1]), u, stretch(u.shape[1]) * u**2], dim=1)
        return (r[:, :, None] * told[:, None, :]).flatten(1)


def stretch(d: int) -> float:
    """Return the factor on squares, sqrt(d / 3).

    Normal entries of a vector of length one have Σ x⁴ = 3 / d.
    """
    return math.sqrt(d / 3)


def log_densities(u: Tensor, y: Tensor, mixture: Mapping[str, Tensor]) -> Tensor:
    """Return ln π + ln N(u; μ, diag v) for each component of an example's own class: ``[n, K]``.

    Parameters
    ----------
    u : Tensor
        ``[n, d]`` features without the bias.
    y : Tensor
        ``[n]`` class indices.
    mixture : mapping of str to Tensor
        Weights ``[C, K]``, means and variances ``[C, K, d]``. Whatever is sent, variances are taken
        for at least 1e-12.
    """
    variances = mixture[VARIANCES].clamp(min=1e-12)
    constants = mixture[WEIGHTS].clamp(min=1e-300).log() - 0.5 * (
        (2 * math.pi * variances).log().sum(dim=2)
    )
    found = torch.empty(len(u), constants.shape[1], dtype=u.dtype)
    for k in range(constants.shape[1]):
        apart = (u - mixture[MEANS][y, k]) ** 2 / variances[y, k]
        found[:, k] = constants[y, k] - 0.5 * apart.sum(dim=1)
    return found
