"""Synthetic features of Gaussian classes, and a softmax head that is trained on them."""

from __future__ import annotations

import numpy as np

from fedtl.train.classes import ClassSums, Matrix
from fedtl.train.closed_form import preconditioner

_STEPS = 100


def sample_features(
    read: ClassSums, size: int, rng: np.random.Generator, *, floor: float = 0.0
) -> tuple[Matrix, np.ndarray]:
    """Draw features around the class means, with the shared covariance, of the classes' length.

    Parameters
    ----------
    size : int
        Draws of each class that somebody has.
    floor : float
        Eigenvalues of the covariance below it are noise and taken for 0.

    Returns
    -------
    tuple
        Features ``[n, d + 1]``, bias included, and classes ``[n]``.
    """
    values, vectors = np.linalg.eigh(read.within() / max(float(read.counts.sum()), 1.0))
    believed = np.where(values > floor, values, 0.0).clip(min=0)
    # the symmetric root: an eigenvector's sign would depend on the order of the sites
    root = vectors * np.sqrt(believed) @ vectors.T
    classes = np.repeat(np.flatnonzero(read.there), size)
    drawn = read.means[classes] + rng.normal(size=(len(classes), len(root))) @ root
    length = np.sqrt(max(float(np.trace(read.gram)) / max(float(read.counts.sum()), 1.0), 0.0))
    norms = np.linalg.norm(drawn, axis=1, keepdims=True).clip(min=1e-12)
    x = np.column_stack([drawn * (length / norms), np.full(len(classes), read.bias)])
    return x, classes


def softmax_head(
    x: Matrix, y: np.ndarray, weights: np.ndarray, classes: int, *, damping: float
) -> Matrix:
    """Train a softmax head ``[C, d]`` by Böhning's preconditioned steps, which never overshoot.

    Parameters
    ----------
    weights : NDArray
        ``[n]``, what each row counts; they add up to 1.
    damping : float
        λ of an L2 penalty λ / 2 |W|².
    """
    targets = np.eye(classes)[y]
    heavy = x * weights[:, None]
    inverse = preconditioner(x.T @ heavy, 1.0, damping=2 * damping)
    head = np.zeros((classes, x.shape[1]))
    for _ in range(_STEPS):
        scores = x @ head.T
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        residuals = scores / scores.sum(axis=1, keepdims=True) - targets
        head -= 2 * (residuals.T @ heavy + damping * head) @ inverse
    return head
