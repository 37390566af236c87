"""Plots of a site's own examination: its classes, and its pixels beside the backbone's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedtl.report.canvas import BLUE, GREEN, GREY, RED, SKY, Plot, axes_at, legend_above, render
from fedtl.report.canvas import name_margin as margin
from fedtl.report.words import clean, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 30
CHANNELS = ("red", "green", "blue")


def plot_classes(classes: Sequence[str], train: Sequence[int], test: Sequence[int]) -> Plot:
    """Plot training and held-out examples per class; of many classes, the largest and smallest."""
    order = np.argsort(-(np.array(train) + np.array(test)), kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    names = [short(classes[at], 24) for at in order]

    def draw(figure: Figure) -> None:
        axes = axes_at(figure, left=margin(names), top=0.32)
        places = np.arange(len(order))[::-1]
        own, held = np.array(train)[order], np.array(test)[order]
        axes.barh(places, own, color=BLUE, label="training")
        axes.barh(places, held, left=own, color=SKY, label="held out")
        axes.set_yticks(places, names)
        axes.set_xlabel("examples")
        axes.grid(axis="x")
        legend_above(axes)

    height = 0.95 + 0.22 * len(order)
    title = "Examples of each class"
    left_out = len(classes) - len(order)
    meaning = "A head learns little of a class with few examples, and cannot be judged on it."
    meaning += f" {left_out} classes between these are not drawn." if left_out else ""
    return Plot("classes", title, render("classes", draw, height=height, label=title), meaning)


def plot_pixels(
    shares: NDArray[np.float64], mean: Sequence[float], std: Sequence[float], title: str
) -> Plot:
    """Plot how bright the pixels are, beside what the backbone expects.

    Parameters
    ----------
    shares : NDArray
        ``[3, bins]``, share of the pixels of each channel by brightness from 0 to 1.
    mean, std : sequence of float
        Of the backbone's transform, per channel.
    title : str
        The finding.
    """
    bins, title = shares.shape[1], clean(title)
    centres = (np.arange(bins) + 0.5) / bins
    grey = bool(np.allclose(shares, shares[0]))

    def draw(figure: Figure) -> None:
        axes = axes_at(figure, top=0.32)
        low, high = mean[1] - std[1], mean[1] + std[1]
        axes.axvspan(max(low, 0), min(high, 1), color=GREY, alpha=0.15, label="expected")
        axes.axvline(mean[1], color=GREY, linestyle="--")
        for name, colour, line in zip(CHANNELS, (RED, GREEN, BLUE), shares, strict=True):
            if grey and name != "blue":
                continue
            axes.plot(centres, 100 * line, color=colour, label="grey" if grey else name)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("brightness, from black (0) to white (1)")
        axes.set_ylabel("% of pixels")
        axes.grid(axis="y")
        legend_above(axes, columns=4)

    meaning = (
        "Lines: the pixels of a sample of your images, as the backbone sees them. Dashed line and "
        "grey band: the mean and spread (of the green channel) by which the backbone's own input "
        "is normalised. Lines far from the band mean images unlike those that the backbone learned "
        "from: features still work, but less well."
    )
    return Plot("pixels", title, render("pixels", draw, height=2.8, label=title), meaning)
