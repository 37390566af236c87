"""What attacks have proved, beside what is claimed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fedtl.audit.lira import most_tpr
from fedtl.audit.result import AuditResult, Membership
from fedtl.report import canvas
from fedtl.report.canvas import BLUE, GREY, INK, ORANGE, RED, Plot
from fedtl.report.words import at_least, percent, privacy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_RATE = 1e-4


def bounds_of(result: AuditResult) -> list[tuple[str, float]]:
    """Return name and value of each lower bound, the most careful first."""
    certified = result.certified
    named = [
        ("any mechanism", certified.one_run),
        ("a Gaussian mechanism", certified.one_run_curve),
        ("independent canaries", certified.independent),
    ]
    return [(name, value) for name, value in named if value is not None]


def plot_bounds(result: AuditResult) -> Plot:
    """Plot the claimed epsilon and the lower bounds."""
    found = at_least(result.certified.highest)
    title = (
        f"Without privacy, epsilon is at least {found}"
        if result.epsilon is None
        else f"Claimed epsilon {privacy(result.epsilon)}, proved at least {found}"
    )
    names, values = zip(*bounds_of(result), strict=True)
    draw = partial(_draw_bounds, names=names, values=values, claim=result.epsilon)
    return Plot(
        "bounds",
        title,
        canvas.render("bounds", draw, height=2.3, label=title),
        "A bar is what canaries prove: epsilon cannot be smaller, with 95 % confidence. It is "
        "longer the more is supposed: nothing at all, the Gaussian mechanism that the plan "
        "claims, or also that canaries do not disturb each other. A promise is broken where a bar "
        "passes the dashed line. A bar that stays well below it is no proof of more privacy.",
    )


def _draw_bounds(
    figure: Figure, *, names: tuple[str, ...], values: tuple[float, ...], claim: float | None
) -> None:
    axes = canvas.axes_at(figure, left=canvas.name_margin(names), top=0.35)
    over = [claim is not None and value > claim for value in values]
    axes.barh(range(len(values)), values, height=0.55, color=[RED if o else BLUE for o in over])
    for at, value in enumerate(values):
        inside = value > 0.4 * max(*values, claim or 0.0)
        axes.annotate(
            at_least(value),
            (value, at),
            (-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else INK,
        )
    if claim is not None:
        axes.axvline(claim, color=RED, ls="--", lw=1.6, label=f"claimed: {privacy(claim)}")
        canvas.legend_above(axes)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max(*values, claim or 0.0, 0.1))
    axes.set_xlabel("epsilon")


def plot_membership(result: AuditResult) -> Plot | None:
    """Plot the ROC curve of the membership attack; None where there was none."""
    if (found := result.membership) is None:
        return None
    title = f"Members found at 1 % false alarms: {percent(found.tpr_at_1)}"
    draw = partial(_draw_membership, found=found, epsilon=result.epsilon, delta=result.delta)
    return Plot(
        "membership",
        title,
        canvas.render("membership", draw, height=3.2, label=title),
        f"Who was in the training data? {found.shadows} shadow heads, each trained on half of "
        f"{found.examples} examples, taught the attacker to tell (area under the curve "
        f"{found.auc:.3f}; 0.5 is chance). Real examples are easier to hide than canaries.",
    )


def _draw_membership(
    figure: Figure, *, found: Membership, epsilon: float | None, delta: float
) -> None:
    from matplotlib.ticker import NullLocator

    axes = canvas.axes_at(figure, left=0.85, right=0.3, top=0.35)
    rates = [10 ** (-4 + step / 25) for step in range(101)]
    if epsilon is not None:
        limit = [most_tpr(rate, epsilon=epsilon, delta=delta) for rate in rates]
        axes.plot(rates, limit, color=RED, ls="--", lw=1.4, label="most the claim allows")
    axes.plot(rates, rates, color=GREY, lw=1, label="chance")
    points = [(f, t) for f, t in zip(found.fpr, found.tpr, strict=True) if f >= _LEAST_RATE]
    axes.plot(*zip(*points, strict=True), color=ORANGE, lw=2, label="attack")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_LEAST_RATE, 1)
    axes.set_ylim(_LEAST_RATE, 1.1)
    ticks = [10.0**power for power in range(-4, 1)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("false alarms")
    axes.set_ylabel("members found")
    canvas.legend_above(axes)
