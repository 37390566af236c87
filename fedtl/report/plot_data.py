"""What the sites have: how many examples, and of which classes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedtl.report import canvas
from fedtl.report.canvas import BLUE, SKY, Plot
from fedtl.report.order import thinned
from fedtl.report.result import RunResult
from fedtl.report.words import count, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SITES = 24
"""Sites that get a line of their own."""


def plot_labels(result: RunResult) -> Plot | None:
    """Plot how the classes are spread over the sites; None if no site told."""
    told = [s for s in result.sites if len(s.labels) == len(result.classes) and any(s.labels)]
    if not told:
        return None
    counts = np.array([[n or 0 for n in site.labels] for site in told], dtype=np.int64)
    written = [[_hidden(result) if n is None else n for n in site.labels] for site in told]
    shares = counts / counts.sum(1, keepdims=True)
    distance = np.abs(shares - counts.sum(0) / counts.sum()).sum(1) / 2
    odd, top = told[int(distance.argmax())], int(shares[int(distance.argmax())].argmax())
    share = 100 * shares[int(distance.argmax()), top]
    title = f"{share:.0f} % of {short(odd.name, 30)} is “{short(result.classes[top], 24)}”"
    if len(told) > 1:
        title = f"Most unusual mix: {title}"
    rows = thinned(len(told), 200)
    draw = partial(
        _draw_labels,
        shares=shares[rows],
        written=[written[i] for i in rows],
        sites=[short(told[i].name, 14) for i in rows],
        classes=[short(name, 14) for name in result.classes],
    )
    height = min(1.3 + 0.24 * len(rows), 4.2)
    svg = canvas.render("labels", draw, height=max(height, 1.9), label=title)
    return Plot("labels", title, svg, _labels_meaning(result, len(rows), len(told)))


def _hidden(result: RunResult) -> str:
    return f"<{result.suppress_below}"


def _labels_meaning(result: RunResult, shown: int, told: int) -> str:
    text = (
        "Each row is a site, each column a class: the darker the cell, the larger the share of "
        "the site's training examples. Rows that look alike mean similar sites. Where one cell is "
        "dark and the rest of a row is empty, that site has hardly seen the other classes, and a "
        "head trained there alone cannot know them."
    )
    if result.labels == "noised":
        text += " The sites told these numbers with noise, under the plan."
    elif any(n is None for site in result.sites for n in site.labels):
        text += f" Numbers marked {_hidden(result)} are too small to be shown, and count as none."
    return text + (f" An even choice of {shown} of {count(told)} sites." if shown < told else "")


def _draw_labels(
    figure: Figure,
    *,
    shares: np.ndarray,
    written: list[list[int | str]],
    sites: list[str],
    classes: list[str],
) -> None:
    tall = 0.28 if max(map(len, classes)) <= 3 else canvas.name_margin(classes)
    axes = canvas.axes_at(figure, left=canvas.name_margin(sites), bottom=min(tall + 0.22, 1.4))
    canvas.heat_map(axes, shares, written)
    rows = thinned(len(sites), MOST_SITES if len(sites) <= MOST_SITES else 12)
    axes.set_yticks(rows, [sites[i] for i in rows])
    columns = thinned(len(classes), 24 if len(classes) <= 24 else 12)
    names = [classes[i] for i in columns]
    axes.set_xticks(columns, names, rotation=0 if tall == 0.28 else 90)
    has_room = max(len(sites), len(classes)) <= canvas.MOST_WRITTEN
    axes.set_xlabel("Class (numbers: training examples)" if has_room else "Class")


Sized = tuple[int, int, str]
"""Training and held-out examples of a site, and its name."""


def plot_examples(result: RunResult) -> Plot | None:
    """Plot how many examples the sites have; None where no site's size is known."""
    known = [(s.train, s.test or 0, s.name) for s in result.sites if s.train is not None]
    if not known:
        return None
    ranked = sorted(known, key=lambda site: (site[0], site[2]))
    (few, _, smallest), (many, _, largest) = ranked[0], ranked[-1]
    title = f"{short(smallest, 24)} has {count(few)} training examples"
    if len(ranked) > 1:
        title = f"From {count(few)} training examples ({short(smallest, 24)}) "
        title += f"to {count(many)} ({short(largest, 24)})"
    crowd = len(ranked) > MOST_SITES
    height = 2.8 if crowd else max(0.9 + 0.22 * len(ranked), 1.6)
    draw = partial(_draw_many if crowd else _draw_few, ranked=ranked)
    meaning = (
        "Training examples are used to fit the head, held-out examples only to measure it. A small "
        "site has a noisier accuracy and, at the same privacy, usually gains most from the others."
    )
    svg = canvas.render("examples", draw, height=height, label=title)
    return Plot("examples", title, svg, meaning)


def _draw_few(figure: Figure, *, ranked: list[Sized]) -> None:
    names = [short(name, 16) for _, _, name in ranked]
    axes = canvas.axes_at(figure, left=canvas.name_margin(names), top=0.3)
    train, test = [n for n, _, _ in ranked], [n for _, n, _ in ranked]
    axes.barh(names, train, height=0.74, color=BLUE, label="training")
    axes.barh(names, test, left=train, height=0.74, color=SKY, label="held out")
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    axes.set_xlabel("Examples")
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.tick_params(axis="y", length=0)
    canvas.legend_above(axes, 2)


def _draw_many(figure: Figure, *, ranked: list[Sized]) -> None:
    axes = canvas.axes_at(figure, left=0.75, top=0.3)
    at = thinned(len(ranked))
    ranks, train = [i + 1 for i in at], np.array([ranked[i][0] for i in at])
    total = train + np.array([ranked[i][1] for i in at])
    axes.fill_between(ranks, train, total, color=SKY, lw=0, label="held out")
    axes.fill_between(ranks, 0, train, color=BLUE, lw=0, label="training")
    axes.set_xlim(1, len(ranked))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Sites, from the smallest to the largest")
    axes.set_ylabel("Examples")
    axes.grid(axis="y")
    canvas.legend_above(axes, 2)
