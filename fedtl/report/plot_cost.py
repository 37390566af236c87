"""What the run cost: privacy, time and bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREEN, ORANGE, RED, SKY, Plot
from fedtl.report.order import thinned
from fedtl.report.result import RunResult
from fedtl.report.words import duration, privacy, size, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 60
"""Bars side by side; with more rounds, a bar is the mean of several."""


def plot_epsilon(result: RunResult) -> Plot | None:
    """Plot the privacy spent over the rounds; None for a run without privacy."""
    if result.epsilon is None or not any(r.epsilon for r in result.history):
        return None
    most = [max(r.epsilon.values(), default=0.0) for r in result.history]
    spent = list(itertools.accumulate(most, max))
    title = f"Privacy spent: epsilon {privacy(spent[-1])} of at most {result.epsilon:g}"
    at = thinned(len(spent))
    draw = partial(
        _draw_epsilon,
        rounds=[result.history[i].round for i in at],
        spent=[spent[i] for i in at],
        budget=result.epsilon,
    )
    return Plot(
        "epsilon",
        title,
        canvas.render("epsilon", draw, height=2.9, label=title),
        f"Epsilon bounds how much anybody who sees {_SEEN[result.model]} can learn about one "
        "of its examples; smaller is more private, and it can only grow. The line is the site "
        "that has spent most so far. A site refuses to send anything that would carry it over its "
        "budget.",
    )


_SEEN = {
    "site": "everything a site has sent",
    "distributed": "the sums of what the sites have sent, and no single update,",
}


def _draw_epsilon(figure: Figure, *, rounds: list[int], spent: list[float], budget: float) -> None:
    axes = canvas.axes_at(figure, top=0.3)
    axes.axhline(budget, color=RED, ls="--", lw=1.6, label="budget of a site")
    axes.step(
        [rounds[0] - 1, *rounds], [0.0, *spent], where="post", color=BLUE, lw=2, label="spent"
    )
    axes.plot(rounds, spent, "o", color=BLUE, ms=4 if len(rounds) <= 30 else 0)
    axes.set_xlim(rounds[0] - 1, rounds[-1] + 0.5)
    axes.set_ylim(0, 1.08 * max(budget, *spent))
    axes.set_xlabel("Round")
    axes.set_ylabel("Epsilon, largest of all sites")
    axes.locator_params(axis="x", integer=True, nbins=10, min_n_ticks=1)
    axes.grid(axis="y")
    canvas.legend_above(axes, 2)


def plot_seconds(result: RunResult) -> Plot | None:
    """Plot where the time went; None if nothing was timed."""
    if not result.seconds and not result.history:
        return None
    total = sum(result.seconds.values())
    title = "Time per round"
    if total > 0:
        longest = max(result.seconds, key=lambda phase: result.seconds[phase])
        took = duration(result.seconds[longest])
        title = f"{duration(total)} in all, the longest part is {longest}: {took}"
    height = 0.35 + 0.24 * len(result.seconds) + (2.3 if result.history else 0.0)
    draw = partial(_draw_seconds, result=result)
    return Plot(
        "seconds",
        title,
        canvas.render("seconds", draw, height=max(height, 1.0), label=title),
        "Above, the phases of the whole run. Turning examples into features happens once; a "
        "second run on the same data finds them on disk. Below, each round: training at the "
        "sites, combining their updates, measuring the result. All in wall-clock time.",
    )


def _draw_seconds(figure: Figure, *, result: RunResult) -> None:
    height = float(figure.get_size_inches()[1])
    if result.seconds:
        bottom = 2.3 if result.history else 0.1
        axes = canvas.axes_at(figure, left=1.0, right=0.8, bottom=bottom + 0.15, top=0.1)
        _draw_phases(axes, result.seconds)
    if result.history:
        axes = canvas.axes_at(figure, top=max(height - 1.9, 0.3))
        stages = {
            "training": [r.seconds_train for r in result.history],
            "aggregation": [r.seconds_aggregate for r in result.history],
            "evaluation": [r.seconds_evaluate for r in result.history],
        }
        _draw_bars(axes, [r.round for r in result.history], stages, (BLUE, RED, SKY))
        axes.set_ylabel("Seconds per round")
        canvas.legend_above(axes)


def _draw_phases(axes: Axes, seconds: dict[str, float]) -> None:
    names, values = list(seconds), list(seconds.values())
    rows = range(len(names))[::-1]
    bars = axes.barh(rows, values, height=0.7, color=GREEN)
    axes.bar_label(bars, [duration(value) for value in values], padding=4, fontsize=8.5)
    axes.set_yticks(rows, names)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines["bottom"].set_visible(False)


def _draw_bars(
    axes: Axes, rounds: list[int], parts: dict[str, list[float]], colours: Sequence[str]
) -> None:
    """Stack the parts of each round; with very many rounds a bar is a mean."""
    bins = np.array_split(np.arange(len(rounds)), min(len(rounds), MOST_BARS))
    at = [float(np.mean([rounds[i] for i in group])) for group in bins]
    base = np.zeros(len(bins))
    for (name, values), colour in zip(parts.items(), colours, strict=True):
        means = np.array([np.mean([values[i] for i in group]) for group in bins])
        axes.bar(at, means, width=0.8 * len(bins[0]), bottom=base, color=colour, label=name)
        base += means
    axes.set_xlim(at[0] - len(bins[0]), at[-1] + len(bins[0]))
    axes.locator_params(axis="x", integer=True, nbins=10, min_n_ticks=1)
    axes.set_xlabel("Round" if len(bins) == len(rounds) else "Round (a bar is the mean of several)")
    axes.grid(axis="y")


def plot_bytes(result: RunResult) -> Plot | None:
    """Plot where the bytes went; None if none were counted."""
    down, up = ([getattr(r, name) for r in result.history] for name in ("bytes_down", "bytes_up"))
    total = sum(down) + sum(up)
    if not total:
        return None
    each = total / max(len(result.sites), 1)
    title = f"{size(total)} in all, {size(each)} per site"
    divisor, name = unit(max(d + u for d, u in zip(down, up, strict=True)))
    parts = {
        "to the sites": [n / divisor for n in down],
        "back to the server": [n / divisor for n in up],
    }
    draw = partial(
        _draw_bytes,
        rounds=[r.round for r in result.history],
        parts=parts,
        label=f"{name} per round",
    )
    return Plot(
        "bytes",
        title,
        canvas.render("bytes", draw, height=2.9, label=title),
        "Only the head travels, never the images and never the backbone's features. Down goes the "
        "current head, up come the sites' updates. Counted are the arrays themselves; the network "
        "adds a few percent.",
    )


def _draw_bytes(
    figure: Figure, *, rounds: list[int], parts: dict[str, list[float]], label: str
) -> None:
    axes = canvas.axes_at(figure, top=0.3)
    _draw_bars(axes, rounds, parts, (BLUE, ORANGE))
    axes.set_ylabel(label)
    canvas.legend_above(axes, 2)
