"""How well the heads do, over the rounds and at each site."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, Plot
from fedtl.report.order import by_accuracy, extremes, thinned, worst_site
from fedtl.report.result import GLOBAL_HEAD, RoundResult, RunResult, SiteResult
from fedtl.report.words import count, percent, plural, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SITES = 20
"""Sites that get a bar of their own."""
EXTREMES = 12
"""With more sites, bars for the worst and the best, and a histogram of all."""


def plot_rounds(result: RunResult) -> Plot | None:
    """Plot the accuracy over the rounds; None if no round was evaluated."""
    known = [r for r in result.history if r.accuracy is not None]
    if not known:
        return None
    last = result.accuracy if result.accuracy is not None else known[-1].accuracy
    title = f"{result.heads}: {percent(last)} after {plural(len(result.history), 'round')}"
    draw = partial(_draw_rounds, result=result, known=known)
    return Plot(
        "rounds",
        title,
        canvas.render("rounds", draw, height=3.2, label=title),
        _rounds_meaning(result) + _noised(result),
    )


def _noised(result: RunResult) -> str:
    if result.metrics != "noised":
        return ""
    return " Accuracies are made of noised counts: the fewer the examples, the less exact."


def _whose(result: RunResult) -> str:
    joint = result.heads == GLOBAL_HEAD
    return "the jointly trained head gets" if joint else "each site's own head gets"


def _rounds_meaning(result: RunResult) -> str:
    text = (
        f"The line is the share of all held-out examples that {_whose(result)} right, measured "
        "after a round on data it was not trained on."
    )
    if len(result.sites) > 1:
        text += " The band reaches from the worst site to the best."
    if result.accuracy_without_privacy is not None:
        text += " Where it ends below “without privacy”, the distance is the price of privacy."
    if result.accuracy_local_own is not None:
        text += (
            " “Local-only” is what sites reach that train alone, on their own held-out examples "
            "and on everybody's: what lies above is gained by working together."
        )
    return text


def _draw_rounds(figure: Figure, *, result: RunResult, known: list[RoundResult]) -> None:
    axes = canvas.axes_at(figure, top=0.66)
    shown = [known[i] for i in thinned(len(known))]
    rounds = [r.round for r in shown]
    spread = [list(r.site_accuracy.values()) or [r.accuracy or 0.0] for r in shown]
    low, high = ([100 * f(s) for s in spread] for f in (min, max))
    if len(result.sites) > 1:
        axes.fill_between(
            rounds, low, high, color=SKY, alpha=0.35, lw=0, label="worst to best site"
        )
    line = [100 * (r.accuracy or 0.0) for r in shown]
    marker = "o" if len(shown) <= 30 else ""
    axes.plot(rounds, line, color=BLUE, lw=2, marker=marker, ms=4, label=result.heads.lower())
    for share, name, colour, dashes in (
        (result.accuracy_without_privacy, "without privacy", GREEN, "--"),
        (result.accuracy_local_own, "local-only, own data", ORANGE, "-."),
        (result.accuracy_local_all, "local-only, all data", PURPLE, ":"),
    ):
        if share is not None:
            axes.axhline(100 * share, color=colour, ls=dashes, lw=1.6, label=name)
    _round_axis(axes, rounds)
    axes.set_ylabel("Accuracy (%)")
    axes.set_ylim(top=min(102.0, axes.get_ylim()[1]))
    canvas.legend_above(axes, 2)


def _round_axis(axes: Axes, rounds: list[int]) -> None:
    axes.set_xlabel("Round")
    axes.set_xlim(rounds[0] - 0.5, rounds[-1] + 0.5)
    axes.locator_params(axis="x", integer=True, nbins=10, min_n_ticks=1)
    axes.grid(axis="y")


def plot_sites(result: RunResult) -> Plot | None:
    """Plot the accuracy at each site; None without an evaluation."""
    known = by_accuracy(result)
    if not known:
        return None
    worst = worst_site(result)
    title = (
        f"Worst site: {short(worst.name, 40)}, {percent(worst.accuracy)}"
        if worst
        else f"{short(known[0].name, 40)}: {percent(known[0].accuracy)}"
    )
    bars = known if len(known) <= MOST_SITES else extremes(known, EXTREMES)
    height = 1.0 + 0.22 * len(bars) + (1.5 if len(known) > len(bars) else 0.0)
    draw = partial(_draw_sites, known=known, bars=bars, worst=worst, heads=result.heads)
    svg = canvas.render("sites", draw, height=max(height, 1.6), label=title)
    meaning = _sites_meaning(known, bars, joint=result.heads == GLOBAL_HEAD)
    return Plot("sites", title, svg, meaning + _noised(result))


def _sites_meaning(known: list[SiteResult], bars: list[SiteResult], *, joint: bool) -> str:
    whose = "the joint head" if joint else "a site's personal head"
    text = (
        f"Each bar is the accuracy of {whose} on one site's own held-out examples. An "
        "average can look good while one institution is served badly, so the worst site is marked."
    )
    if len(bars) < len(known):
        half = EXTREMES // 2
        text += f" Of {count(len(known))} sites, the {half} worst and the {half} best have a bar."
    both = [(s.accuracy or 0.0, s.local_own) for s in known if s.local_own is not None]
    if both:
        better = sum(joint >= own for joint, own in both)
        text += (
            " The diamond is a head that the site trained alone, without privacy. "
            f"{whose.capitalize()} is at least as good at {count(better)} of {count(len(both))} "
            "sites."
        )
    return text


def _draw_sites(
    figure: Figure,
    *,
    known: list[SiteResult],
    bars: list[SiteResult],
    worst: SiteResult | None,
    heads: str,
) -> None:
    names = [short(site.name, 16) for site in bars]
    height, left = float(figure.get_size_inches()[1]), canvas.name_margin(names)
    upper = 1.5 if len(known) > len(bars) else 0.0
    if upper:
        crowd = canvas.axes_at(figure, left=left, right=0.2, bottom=height - upper + 0.25)
        _draw_crowd(crowd, known)
    axes = canvas.axes_at(figure, left=left, right=0.2, top=0.3 + upper)
    rows = np.arange(len(bars))[::-1]
    values = [100 * (site.accuracy or 0.0) for site in bars]
    colours = [RED if site is worst else BLUE for site in bars]
    axes.barh(rows, values, height=0.74, color=colours, label=heads.lower())
    own = [(y, s.local_own) for y, s in zip(rows, bars, strict=True) if s.local_own is not None]
    if own:
        ys, shares = zip(*own, strict=True)
        at = [100 * share for share in shares]
        (marks,) = axes.plot(at, ys, "D", color=ORANGE, label="local-only head, own data")
        marks.set(markeredgecolor=INK, markeredgewidth=0.6, markersize=5, clip_on=False)
        canvas.legend_above(axes, 2)
    for y, value in zip(rows, values, strict=True):
        axes.text(1.5, y, f"{value:.1f}", va="center", color="white", fontsize=8, fontweight="bold")
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Accuracy on the site's held-out examples (%)")
    axes.tick_params(axis="y", length=0)


def _draw_crowd(axes: Axes, known: list[SiteResult]) -> None:
    edges = np.linspace(0, 100, 41)
    values = [100 * (site.accuracy or 0.0) for site in known]
    axes.hist(values, bins=edges.tolist(), color=BLUE)
    axes.set_xlim(0, 100)
    axes.set_ylabel("Sites")
    axes.text(2, 0, f"All {count(len(known))} sites", va="bottom")
    axes.locator_params(axis="y", integer=True, nbins=4)
