"""Accuracy over what a study turns up and down: label skew, bad sites, or the privacy budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report.study_panels import (
    BAND,
    MOST_PANELS,
    Curve,
    Drawing,
    draw_curves,
    label_left,
    legend_of,
    panels_of,
    size_of,
)
from fedtl.report.study_result import CellResult, Scale, StudyResult
from fedtl.report.words import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Panels = dict[str, list[Curve]]


@dataclass(frozen=True, slots=True)
class _Said:
    """How a scale is spoken of; ``worse`` is the end where a method should do worse."""

    title: str
    axis: str
    meaning: str
    worse: int
    percent: bool = False


_SCALES = {
    "alpha": _Said(
        "Sensitivity to label skew",
        "Alpha of the Dirichlet partition (small is skewed)",
        "Alpha is the Dirichlet concentration by which labels are spread over sites: to the left, "
        "sites have ever fewer classes each. A flat line does not mind the skew.",
        worse=0,
    ),
    "share": _Said(
        "Bad sites",
        "Share of bad sites (%)",
        "The further to the right, the more sites send what the attack makes of their updates. A "
        "rule that promises to bear a share of bad sites stays level up to it.",
        worse=-1,
        percent=True,
    ),
    "epsilon": _Said(
        "Price of privacy",
        "Epsilon of a site's budget (small is private)",
        "To the left, sites add ever more noise. A flat line does not mind it.",
        worse=0,
    ),
}


def draw_scales(result: StudyResult) -> Iterator[Drawing]:
    """Yield a figure for each scale whose axis is not the one that is compared."""
    for scale in result.scales:
        if scale.axis in result.varied and (panels := _panels(result, scale)):
            yield _drawing(scale, panels)


def _drawing(scale: Scale, panels: Panels) -> Drawing:
    said = _SCALES[scale.quantity]
    every = [c for curves in panels.values() for c in curves]
    best = -1 if said.worse == 0 else 0
    lost: dict[str, float] = {}
    for c in every:
        lost[c.label] = max(float(c.mean[best] - c.mean[said.worse]), lost.get(c.label, -1.0))
    most = max(lost, key=lambda label: lost[label])
    height, width = size_of(len(panels), sorted(lost))
    return Drawing(
        key=f"by-{scale.quantity}",
        title=f"{said.title}: {short(most, 30)} loses most, {100 * lost[most]:.1f} points",
        meaning=f"Accuracy of the resulting heads. {said.meaning} {BAND}",
        draw=partial(_draw, panels=panels, said=said),
        height=height,
        width=width,
    )


def _panels(result: StudyResult, scale: Scale) -> Panels:
    """Return curves of two points and more, by setting of the other axes (and kind of attack)."""
    at, order = result.varied.index(scale.axis), result.axes[result.compared]
    found: dict[str, dict[str, list[tuple[float, list[float]]]]] = {}
    for group, entries in result.groups().items():
        others = [label for i, label in enumerate(group) if i != at]
        for kind, x in scale.points.get(group[at], ()):
            panel = ", ".join([*others, *([kind] if kind else [])])
            for label, cells in entries.items():
                if values := _last(cells):
                    found.setdefault(panel, {}).setdefault(label, []).append((x, values))
    drawn = {
        panel: [
            _line(label, order.index(label), sorted(points))
            for label, points in lines.items()
            if len(points) > 1
        ]
        for panel, lines in found.items()
    }
    return dict([(panel, curves) for panel, curves in drawn.items() if curves][:MOST_PANELS])


def _last(cells: Sequence[CellResult]) -> list[float]:
    return [c.last.accuracy for c in cells if c.last and c.last.accuracy is not None]


def _line(label: str, at: int, points: list[tuple[float, list[float]]]) -> Curve:
    xs, values = zip(*points, strict=True)
    folds: tuple[Callable[[list[float]], float], ...] = (lambda v: float(np.mean(v)), min, max)
    mean, low, high = (np.array([fold(v) for v in values]) for fold in folds)
    return Curve(label, at, np.array(xs), mean, low, high)


def _draw(figure: Figure, *, panels: Panels, said: _Said) -> None:
    every = [c for curves in panels.values() for c in curves]
    xs = sorted({float(x) for c in every for x in c.x})
    for axes, curves in zip(panels_of(figure, list(panels)), panels.values(), strict=True):
        if not said.percent:
            axes.set_xscale("log")
        draw_curves(axes, curves, marker="o")
        axes.set_xticks(xs, [f"{100 * x:g}" if said.percent else f"{x:g}" for x in xs])
        axes.minorticks_off()
        axes.set_xlabel(said.axis)
    label_left(figure, "Accuracy (%)")
    legend_of(figure, every)
