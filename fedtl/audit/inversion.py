"""Inversion: a head's gradient on a single example gives away its features and its label.

The gradient is ``(p - y) xᵀ`` and the last feature is a constant b. So the last column is
``(p - y) b``, negative for the true class only, and the true class's row divided by its last entry
is ``x / b`` (Geiping et al. 2020, arXiv:2003.14053, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.privacy.release import Release
from fedtl.train.fit import Examples, fit
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask

BIAS = 0.1
"""The constant feature, as :func:`fedtl.features.prepare` appends it."""
FOUND_BELOW = 0.1
"""Relative error below which features count as found out."""


@dataclass(frozen=True, slots=True)
class Inverted:
    """What updates on single examples gave away.

    Attributes
    ----------
    errors : ndarray of float
        ``[n]``, distance of the features found from the true ones, relative to the latter's length.
    labels_right : float
        Share of labels found.
    """

    errors: NDArray[np.float64]
    labels_right: float

    @property
    def found(self) -> float:
        """Share of examples whose features were found out."""
        return float((self.errors < FOUND_BELOW).mean())


def invert(
    gradient: NDArray[np.floating], *, bias: float = BIAS
) -> tuple[int, NDArray[np.float64]]:
    """Return label and features ``[d]`` from a head's gradient ``[C, d]`` on a single example.

    Examples
    --------
    >>> import numpy as np
    >>> label, x = invert(np.outer([0.3, -0.5, 0.2], [0.6, 0.8, 0.1]))
    >>> label, x.round(6).tolist()
    (1, [0.6, 0.8, 0.1])
    """
    slopes = np.asarray(gradient, np.float64)
    label = int(slopes[:, -1].argmin())
    with np.errstate(divide="ignore", invalid="ignore"):
        return label, slopes[label] / slopes[label, -1] * bias


def invert_updates(
    examples: Examples, classes: int, *, release: Release | None, seed: int = 0
) -> Inverted:
    """Let sites with one example each take a step from a head of zeros, and invert what they send.

    Parameters
    ----------
    examples : Examples
        ``n`` examples, each a site of its own; the last feature is the bias.
    release : Release or None
        What every site's update is protected by.
    """
    n, width = examples.x.shape
    sites = [Examples.of(examples.x[i : i + 1], examples.y[i : i + 1]) for i in range(n)]
    sampling = "full" if release is None or release.sampling_rate == 1 else "poisson"
    sent = fit(
        torch.zeros(n, classes, width),
        sites,
        task=TrainTask(rounds=1, lr=1.0, sampling=sampling),
        release=release,
        streams=[SeededStreams(seed, 1, f"single-{i}") for i in range(n)],
    )
    errors, right = np.empty(n), 0
    for i, update in enumerate(sent.numpy()):
        label, found = invert(-update, bias=float(examples.x[i, -1]))
        true = examples.x[i].double().numpy()
        error = float(np.linalg.norm(found - true) / np.linalg.norm(true))
        errors[i] = error if np.isfinite(error) else np.inf
        right += label == int(examples.y[i])
    return Inverted(errors, right / max(n, 1))
