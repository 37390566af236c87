"""Small multiples: one panel per setting of a study, one colour per entry that is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, Plot
from fedtl.report.study_result import CellResult, CellRound
from fedtl.report.words import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, INK)
DASHES = ("-", "--", ":")
MOST_PANELS = 9
_MOST_NAME, _MOST_ROWS = 32, 5
"""Characters of a name in a legend, and its rows before a figure is made wider."""
BAND = "A line is the mean over the seeds, its band reaches from the lowest seed to the highest."
LOG_RANGE = 30.0
"""Largest over smallest value from which an axis of costs is logarithmic."""
_WIDTHS = (canvas.WIDTH, 8.0, 9.8)
_ROW, _LEGEND_ROW, _BOTTOM, _LEFT, _RIGHT, _GAP = 2.1, 0.21, 0.48, 0.58, 0.14, 0.72


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure that can be drawn as SVG for a page and as PNG.

    Attributes
    ----------
    key, title, meaning : str
        As in :class:`~fedtl.report.canvas.Plot`.
    height, width : float
        Inches.
    """

    key: str
    title: str
    meaning: str
    draw: Callable[[Figure], None]
    height: float
    width: float

    def plot(self) -> Plot:
        """Draw it for a page."""
        size = {"height": self.height, "width": self.width}
        svg = canvas.render(self.key, self.draw, label=self.title, **size)
        return Plot(self.key, self.title, svg, self.meaning)

    def png(self) -> bytes:
        """Draw it as a PNG file."""
        return canvas.render_png(self.key, self.draw, height=self.height, width=self.width)


@dataclass(frozen=True, slots=True)
class Curve:
    """One entry's way through a study, over its seeds.

    Attributes
    ----------
    x, mean, low, high : NDArray, float [n]
        Mean of what is on the x axis, and mean, lowest and highest of what is on the y axis.
    """

    label: str
    at: int
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def style(self) -> dict[str, str]:
        """Colour and dashes, the same for an entry in all figures."""
        colour = COLOURS[self.at % len(COLOURS)]
        return {"color": colour, "ls": DASHES[self.at // len(COLOURS) % len(DASHES)]}


Value = Callable[[CellRound], float | None]


def curve(label: str, at: int, cells: Sequence[CellResult], x: Value, y: Value) -> Curve | None:
    """Return an entry's curve over the rounds that all of its seeds have; None if there is none."""
    by_round: dict[int, list[tuple[float, float]]] = {}
    for cell in cells:
        for r in cell.rounds:
            if (across := x(r)) is not None and (up := y(r)) is not None:
                by_round.setdefault(r.round, []).append((across, up))
    found = [np.array(pairs) for _, pairs in sorted(by_round.items()) if len(pairs) == len(cells)]
    if not found:
        return None
    xs, ys = ([pairs[:, axis] for pairs in found] for axis in (0, 1))
    return Curve(
        label,
        at,
        x=np.array([v.mean() for v in xs]),
        mean=np.array([v.mean() for v in ys]),
        low=np.array([v.min() for v in ys]),
        high=np.array([v.max() for v in ys]),
    )


def layout(panels: int) -> tuple[int, int]:
    """Return rows and columns for a number of panels.

    Examples
    --------
    >>> layout(1), layout(2), layout(3), layout(4), layout(7)
    ((1, 1), (1, 2), (1, 3), (2, 2), (3, 3))
    """
    columns = 2 if panels == 4 else min(panels, 3)
    return math.ceil(panels / columns), columns


def size_of(panels: int, entries: Sequence[str], *, row: float = _ROW) -> tuple[float, float]:
    """Return height and width in inches of a figure of panels with a legend above.

    Examples
    --------
    >>> long = [f"a method with options {n}" for n in range(15)]
    >>> size_of(1, ["fedavg"])[1] < size_of(1, long)[1]
    True
    """
    rows, columns = layout(panels)
    wide = [w for w in _WIDTHS[columns - 1 :] if _legend_rows(entries, w) <= _MOST_ROWS]
    width = wide[0] if wide else _WIDTHS[-1]
    legend = _LEGEND_ROW * _legend_rows(entries, width)
    return rows * row + (rows - 1) * _GAP + _BOTTOM + legend + 0.32, width


def _legend_columns(entries: Sequence[str], width: float) -> int:
    longest = max((len(short(name, _MOST_NAME)) for name in entries), default=1)
    return max(1, min(len(entries), int((width - 0.5) / (0.5 + 0.075 * longest))))


def _legend_rows(entries: Sequence[str], width: float) -> int:
    return math.ceil(len(entries) / _legend_columns(entries, width))


def panels_of(figure: Figure, names: Sequence[str], *, share_x: bool = False) -> list[Axes]:
    """Put titled panels on a figure, which share their y axis."""
    width, height = figure.get_size_inches()
    rows, columns = layout(len(names))
    grid = figure.subplots(rows, columns, sharey=True, sharex=share_x, squeeze=False)
    top = (height - rows * _ROW - (rows - 1) * _GAP - _BOTTOM) - 0.06
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=_BOTTOM / height,
        top=1 - top / height,
        hspace=_GAP / _ROW,
        wspace=0.12,
    )
    axes = list(grid.flat)
    for one, name in zip(axes, names, strict=False):
        one.set_title(short(name, 44), fontsize=9, loc="left", pad=4)
        one.grid(axis="y")
    for empty in axes[len(names) :]:
        empty.set_visible(False)
    return axes[: len(names)]


def label_left(figure: Figure, text: str) -> None:
    """Label the y axes of the left-most panels, once everything is drawn.

    They are shared: a limit that is set while one panel is drawn would cut the curves of the next.
    """
    first = figure.axes[0]
    first.set_ylim(top=min(first.get_ylim()[1], 101.0))
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        if spec is not None and spec.is_first_col():
            axes.set_ylabel(text)


def legend_of(figure: Figure, curves: Sequence[Curve]) -> None:
    """Put one legend above all panels."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    named = {c.label: c for c in sorted(curves, key=lambda c: c.at)}
    lines = [Line2D([], [], lw=2, **c.style) for c in named.values()]  # type: ignore[arg-type]
    figure.legend(
        lines,
        [short(name, _MOST_NAME) for name in named],
        loc="upper left",
        bbox_to_anchor=(0.3 / width, 1 - 0.02 / height),
        ncols=_legend_columns(list(named), width),
        borderaxespad=0.0,
        handlelength=1.8,
        columnspacing=1.2,
    )


def draw_curves(
    axes: Axes, curves: Sequence[Curve], *, scale: float = 1.0, marker: str = ""
) -> None:
    """Draw curves with their bands, in percent; an entry of one round is carried on as dots."""
    end = max((float(c.x[-1]) for c in curves), default=1.0) / scale
    for c in curves:
        x, style = c.x / scale, c.style
        if len(x) > 1:
            axes.fill_between(x, 100 * c.low, 100 * c.high, color=style["color"], alpha=0.18, lw=0)
            axes.plot(x, 100 * c.mean, lw=1.8, marker=marker, ms=4, **style)  # type: ignore[arg-type]
            continue
        middle, colour = 100 * float(c.mean[0]), style["color"]
        axes.vlines(x, 100 * c.low, 100 * c.high, color=colour, lw=4, alpha=0.3)
        axes.plot(x, [middle], "o", color=colour, ms=4.5, clip_on=False, zorder=3)
        axes.hlines(middle, float(x[0]), end, color=colour, ls=":", lw=1.2)


def logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def is_wide(curves: Sequence[Curve]) -> bool:
    """Say whether costs differ so much that they want a logarithmic axis."""
    known = np.concatenate([c.x for c in curves])
    known = known[known > 0]
    return len(known) > 1 and float(known.max() / known.min()) > LOG_RANGE
