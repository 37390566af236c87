"""From a drawing function to a small, self-contained SVG; the only door to matplotlib."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.9
"""Inches: two fit side by side on a desk's screen, one is still legible on a telephone's."""

PNG_DPI = 200
"""Pixels per inch of pictures for slides and papers."""

MOST_WRITTEN = 12
"""Rows and columns up to which a heat map has its numbers written in."""

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart.
BLUE, ORANGE, RED, GREEN, SKY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#56B4E9"
PURPLE, GREY, PALE, INK = "#CC79A7", "#6B7280", "#D5DAE1", "#1F2933"

_STYLE: Any = {
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called "$x^$"
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 9.0,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "grid.color": "#E5E8EC",
    "grid.linewidth": 0.8,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure of the report.

    Attributes
    ----------
    key : str
        Unique in a report; a valid HTML id.
    title : str
        The finding, in one sentence. Not escaped.
    svg : str
        An ``<svg>`` element, safe to put into a page.
    meaning : str
        What is seen, for somebody who has not read a paper. Not escaped.
    """

    key: str
    title: str
    svg: str
    meaning: str


def render(
    key: str, draw: Callable[[Figure], None], *, height: float, label: str, width: float = WIDTH
) -> str:
    """Draw a figure and return it as an SVG element without ids, scripts or outside references.

    Parameters
    ----------
    key : str
        Seeds the names of clip paths, so that figures on one page do not share them.
    draw : Callable
        Puts axes on the figure it is given; see :func:`axes_at`.
    height, width : float
        Inches.
    label : str
        What a screen reader says.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with _drawn(key, draw, (width, height)) as figure:
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_METADATA))
    return _inline(buffer.getvalue(), label)


def render_png(
    key: str, draw: Callable[[Figure], None], *, height: float, width: float = WIDTH
) -> bytes:
    """Draw a figure and return it as a PNG file on white; see :func:`render`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with _drawn(key, draw, (width, height)) as figure:
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor="white")
    return buffer.getvalue()


@contextmanager
def _drawn(key: str, draw: Callable[[Figure], None], size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure with everything on it, to be saved in the house style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": key}), warnings.catch_warnings():
        # The reader's browser has the letters that our font, used for measuring only, may lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=size, facecolor="none")
        draw(figure)
        yield figure


_METADATA = ("Creator", "Date", "Format", "Type")


def _inline(svg: str, label: str) -> str:
    """Cut a document down to an element that can stand beside others in a page."""
    view = re.search(r'viewBox="([0-9. ]+)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<g id="[\w.]+"', "<g", body).replace("'DejaVu Sans'", "system-ui, sans-serif")
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{escape(label)}" viewBox="{view[1] if view else ""}">'
    )
    return opening + re.sub(r"\n\s*", "\n", body).strip()


def axes_at(
    figure: Figure, *, left: float = 0.6, right: float = 0.12, bottom: float = 0.5, top: float = 0.1
) -> Axes:
    """Return axes with margins in inches, so that figures of any height look alike."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )


def legend_above(axes: Axes, columns: int = 3) -> None:
    """Put the legend into the margin above the axes, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderaxespad=0.15,
        handlelength=1.6,
        columnspacing=1.2,
    )


def name_margin(names: Sequence[str]) -> float:
    """Return the inches that names need left of the axes."""
    return 0.2 + 0.075 * max((len(name) for name in names), default=0)


def heat_map(axes: Axes, shares: Any, counts: Sequence[Sequence[int | str]]) -> None:
    """Draw shares in 0..1 as colours, with the counts written in where there is room for them.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    shares : array of float, shape (rows, columns)
        What the colour shows.
    counts : sequence of sequence of int or str, same shape
        What is written.
    """
    darkest = float(shares.max())
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=darkest, aspect="auto", interpolation="none")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if max(len(counts), len(counts[0])) > MOST_WRITTEN:
        return
    for row, line in enumerate(counts):
        for column, number in enumerate(line):
            ink = "white" if shares[row][column] > 0.55 * darkest else INK
            if number:
                axes.text(column, row, f"{number}", ha="center", va="center", fontsize=8, color=ink)
