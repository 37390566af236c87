"""Which classes the global head takes for which."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import Plot
from fedtl.report.order import thinned
from fedtl.report.result import RunResult
from fedtl.report.words import count, percent, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 100
"""Classes in the matrix; with more, those with most mistakes."""


def plot_confusion(result: RunResult) -> Plot | None:
    """Plot the confusion matrix; None without an evaluation."""
    matrix = np.asarray(result.confusion, dtype=np.int64)
    if matrix.ndim != 2 or not matrix.sum() or matrix.shape[0] != len(result.classes):
        return None
    keep = most_mistaken(matrix)
    title, meaning = _words(matrix, result.classes)
    if len(keep) < len(matrix):
        meaning += f" The {len(keep)} classes with most mistakes of {count(len(matrix))} are shown."
    if result.metrics == "noised":
        meaning += " The numbers carry noise: small ones, off the diagonal, may be nothing else."
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [short(result.classes[i], 14) for i in keep]
    cut = np.ix_(keep, keep)
    draw = partial(_draw, shares=shares[cut], counts=matrix[cut], names=names)
    svg = canvas.render("confusion", draw, height=3.6, label=title)
    return Plot("confusion", title, svg, meaning)


def mistakes(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """Return (true class, what the head said, how often), the most frequent mistake first.

    Examples
    --------
    >>> mistakes(np.array([[9, 1], [3, 9]]), most=5)
    [(1, 0, 3), (0, 1, 1)]
    """
    wrong = matrix - np.diag(np.diag(matrix))
    ranked = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [(int(i) // len(matrix), int(i) % len(matrix)) for i in ranked]
    return [(true, said, int(wrong[true, said])) for true, said in cells if wrong[true, said]]


def most_mistaken(matrix: np.ndarray) -> list[int]:
    """Return the classes to show, in their own order."""
    wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    worst = np.argsort(-wrong, kind="stable")[:MOST_CLASSES]
    return sorted(int(i) for i in worst)


def _words(matrix: np.ndarray, classes: list[str]) -> tuple[str, str]:
    """Return the title and what it means."""
    meaning = (
        "Each row is a true class, each column what the head said; a perfect head has its numbers "
        "on the diagonal. The darker a cell, the larger its share of the row. A dark cell off the "
        "diagonal is a mistake made again and again: look there before the head is used."
    )
    said = [
        f"“{short(classes[i], 24)}” taken for “{short(classes[j], 24)}” "
        f"({count(n)}×, {percent(n / matrix[i].sum())})"
        for i, j, n in mistakes(matrix, 6)
    ]
    if not said:
        return f"No mistake on {count(int(matrix.sum()))} held-out examples", meaning
    if said[1:]:
        meaning += f" Next: {'; '.join(said[1:])}."
    return f"Most frequent mistake: {said[0]}", meaning


def _draw(figure: Figure, *, shares: np.ndarray, counts: np.ndarray, names: list[str]) -> None:
    margin = canvas.name_margin(names)
    upright = max(map(len, names)) <= 3
    bottom = 0.55 if upright else min(margin + 0.2, 1.5)
    axes = canvas.axes_at(figure, left=margin + 0.3, bottom=bottom)
    canvas.heat_map(axes, shares, counts.tolist())
    ticks = thinned(len(names), 12 if len(names) > 24 else 24)
    labels = [names[i] for i in ticks]
    axes.set_yticks(ticks, labels)
    axes.set_xticks(ticks, labels, rotation=0 if upright else 90)
    axes.set_ylabel("True class")
    axes.set_xlabel("What the head said")
