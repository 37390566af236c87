"""Which head each site uses, and how far that is ahead of training alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREEN, INK, Plot
from fedtl.report.result import PersonalResult, RunResult
from fedtl.report.words import count, short
from fedtl.types import HEADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SITES = 24
Named = tuple[str, PersonalResult]


def ahead(points: Sequence[float]) -> str:
    """Return how many points a head is ahead of another, with its interval.

    Examples
    --------
    >>> ahead([0.1, 0.04, 0.15])
    '+10.0 [+4.0, +15.0]'
    """
    middle, low, high = (100 * point for point in points)
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"


def plot_personal(result: RunResult) -> Plot | None:
    """Plot how far each site's head in use is ahead of training alone; None without such heads."""
    known = [(site.name, site.personal) for site in result.sites if site.personal is not None]
    known.sort(key=lambda one: (one[1].personal_ahead[0], one[0]))
    if not known:
        return None
    counts = Counter(own.choice for _, own in known)
    used = ", ".join(f"{count(counts[choice])} {choice}" for choice in HEADS if counts[choice])
    title = f"Heads that the sites use: {used}"
    half = MOST_SITES // 2
    shown = known if len(known) <= MOST_SITES else [*known[:half], *known[-half:]]
    svg = canvas.render(
        "personal", partial(_draw, shown=shown), height=1.1 + 0.22 * len(shown), label=title
    )
    return Plot("personal", title, svg, _meaning(known, shown))


def _meaning(known: Sequence[Named], shown: Sequence[Named]) -> str:
    text = (
        "Every site compares three heads on its held-out examples: one it trained alone, the "
        "global one, and its personal one. Dots are how far the last two are ahead of the first, "
        "lines their 95 % intervals: one that touches zero may be chance. A site leaves the head "
        "that it trained alone only for one that is better beyond doubt; the full dot is the head "
        "in use."
    )
    if len(shown) < len(known):
        text += f" Of {count(len(known))} sites, the worst and the best are shown."
    return text


def _draw(figure: Figure, *, shown: Sequence[Named]) -> None:
    names = [short(name, 16) for name, _ in shown]
    axes = canvas.axes_at(figure, left=canvas.name_margin(names), right=0.2, top=0.42)
    for choice, colour, shift in (("global", GREEN, 0.16), ("personal", BLUE, -0.16)):
        for row, (_, own) in enumerate(shown):
            points = own.global_ahead if choice == "global" else own.personal_ahead
            middle, low, high = (100 * point for point in points)
            face = colour if own.choice == choice else "white"
            axes.hlines(row + shift, low, high, color=colour, lw=1.4)
            (dot,) = axes.plot(middle, row + shift, "o", color=colour, ms=4.5)
            dot.set(markerfacecolor=face)
        axes.plot([], [], "o-", color=colour, ms=4.5, label=f"{choice} head")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("Points of accuracy ahead of training alone")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    canvas.legend_above(axes, 2)
