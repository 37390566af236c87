"""The figures of a study: accuracy per round, byte, epsilon and second; worst sites; scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREY, PALE, RED
from fedtl.report.study_panels import (
    BAND,
    MOST_PANELS,
    Curve,
    Drawing,
    Value,
    curve,
    draw_curves,
    is_wide,
    label_left,
    legend_of,
    logarithmic,
    panels_of,
    size_of,
)
from fedtl.report.study_result import StudyResult
from fedtl.report.study_scales import draw_scales
from fedtl.report.study_stats import Mean, Row, table_of
from fedtl.report.words import percent, plural, short, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panels = dict[str, list[Curve]]
_ONE_SHOT = " A dot with a dotted line is a method that is done after one evaluation."


def draw_study(result: StudyResult) -> list[Drawing]:
    """Return every figure for which the study has numbers, in the order they are read."""
    rows = [row for row in table_of(result) if row.accuracy is not None]
    if not rows:
        return []
    found = [
        _over(result, "round", lambda r: float(r.round)),
        _over(result, "bytes", lambda r: float(r.n_bytes)),
        _over(result, "epsilon", lambda r: r.epsilon),
        _over(result, "seconds", lambda r: r.seconds),
        _worst(result, rows),
        *draw_scales(result),
    ]
    return [drawing for drawing in found if drawing is not None]


_SAID = {
    "round": ("Round", "Accuracy per round", ""),
    "bytes": (
        "Sent to and from all sites",
        "Accuracy per byte",
        " Bytes are those of heads, sums and metrics to and from all sites.",
    ),
    "epsilon": (
        "Epsilon spent",
        "Accuracy per epsilon",
        " Epsilon is what the site that has spent most has spent.",
    ),
    "seconds": (
        "Seconds",
        "Accuracy per second",
        " Seconds are those of one core of this machine, other cells beside it; data and features "
        "are not counted.",
    ),
    "virtual": (
        "Virtual seconds",
        "Accuracy per second",
        " Seconds are virtual: a round takes as long as the simulated sites that it waits for.",
    ),
}


def _over(result: StudyResult, what: str, x: Value) -> Drawing | None:
    """Draw accuracy over a cost."""
    panels = _panels(result, x)
    every = [c for curves in panels.values() for c in curves]
    if not every:
        return None
    label, title, more = _SAID["virtual" if what == "seconds" and result.virtual else what]
    height, width = size_of(len(panels), sorted({c.label for c in every}))
    one_shot = _ONE_SHOT if any(len(c.x) == 1 for c in every) else ""
    return Drawing(
        key=f"accuracy-per-{what.removesuffix('s')}",
        title=f"{title}: {_best(result)}",
        meaning=f"Accuracy on all sites' held-out examples. {BAND}{one_shot}{more}"
        + _left_out(result, panels),
        draw=partial(_draw_over, panels=panels, what=what, label=label),
        height=height,
        width=width,
    )


def _panels(result: StudyResult, x: Value) -> Panels:
    found: Panels = {}
    order = result.axes[result.compared]
    for group, entries in list(result.groups().items())[:MOST_PANELS]:
        curves = [
            curve(label, order.index(label), cells, x, lambda r: r.accuracy)
            for label, cells in entries.items()
        ]
        if known := [c for c in curves if c is not None]:
            found[", ".join(group)] = known
    return found


def _left_out(result: StudyResult, panels: Panels) -> str:
    more = len(result.groups()) - MOST_PANELS
    return f" {plural(more, 'setting')} more are in results.parquet." if more > 0 else ""


def _best(result: StudyResult) -> str:
    """Say which entry ends highest, over all settings."""
    found: dict[str, list[float]] = {}
    for row in table_of(result):
        if row.accuracy is not None:
            found.setdefault(row.label, []).append(row.accuracy.mean)
    best = max(found, key=lambda label: float(np.mean(found[label])))
    where = " on average" if len(result.groups()) > 1 else ""
    return f"{short(best, 30)} ends highest{where}, at {percent(float(np.mean(found[best])))}"


def _draw_over(figure: Figure, *, panels: Panels, what: str, label: str) -> None:
    every = [c for curves in panels.values() for c in curves]
    scale, name = unit(max(float(c.x.max()) for c in every)) if what == "bytes" else (1.0, "")
    for axes, curves in zip(panels_of(figure, list(panels)), panels.values(), strict=True):
        if what in ("bytes", "seconds") and is_wide(every):
            logarithmic(axes)
        draw_curves(axes, curves, scale=scale)
        if what == "round":
            axes.locator_params(axis="x", integer=True, nbins=8, min_n_ticks=1)
        axes.set_xlabel(f"{label} ({name})" if name else label)
    label_left(figure, "Accuracy (%)")
    legend_of(figure, every)


def _worst(result: StudyResult, rows: Sequence[Row]) -> Drawing | None:
    """Draw each entry's accuracy beside that of its worst site."""
    known = [row for row in rows if row.worst is not None]
    if not known:
        return None
    shown = known[:40]
    lowest = min(known, key=lambda row: row.worst.mean if row.worst else 1.0)
    where = f" ({', '.join(lowest.group)})" if lowest.group else ""
    value = percent(lowest.worst.mean if lowest.worst else None)
    return Drawing(
        key="worst-site",
        title=f"Worst site: lowest with {short(lowest.label, 30)}{short(where, 40)}, {value}",
        meaning="The blue dot is the accuracy over all held-out examples, the red one that of the "
        "site where the head does worst, both after the last round; lines are 95 % confidence "
        "intervals over the seeds. An average can look good while one site is served badly.",
        draw=partial(_draw_worst, rows=shown),
        height=0.95 + 0.24 * len(shown),
        width=8.0 if any(row.group for row in shown) else 4.9,
    )


def _draw_worst(figure: Figure, *, rows: Sequence[Row]) -> None:
    names = [short(", ".join([*row.group, row.label]), 44) for row in rows]
    axes = canvas.axes_at(figure, left=canvas.name_margin(names), right=0.2, top=0.3)
    for at, row in enumerate(rows):
        if at and row.group != rows[at - 1].group:
            axes.axhline(at - 0.5, color=PALE, lw=0.8, zorder=0)
        both = [m.mean for m in (row.worst, row.accuracy) if m is not None]
        axes.plot([100 * m for m in both], [at] * len(both), color=GREY, lw=1, zorder=1)
        for mean, colour, name in (
            (row.accuracy, BLUE, "all sites"),
            (row.worst, RED, "worst site"),
        ):
            if mean is not None:
                _dot(axes, at, mean, colour, name if at == 0 else "")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(right=min(axes.get_xlim()[1], 101.0), left=max(axes.get_xlim()[0], 0.0))
    axes.set_xlabel("Accuracy (%)")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    canvas.legend_above(axes, 2)


def _dot(axes: Axes, at: int, mean: Mean, colour: str, name: str) -> None:
    if mean.half is not None:
        ends = [100 * max(mean.mean - mean.half, 0.0), 100 * min(mean.mean + mean.half, 1.0)]
        axes.plot(ends, [at, at], color=colour, lw=4, alpha=0.25, zorder=2, solid_capstyle="butt")
    axes.plot([100 * mean.mean], [at], "o", color=colour, ms=5.5, zorder=3, label=name or None)
