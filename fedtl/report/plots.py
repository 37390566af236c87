"""All figures of a report, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable

from fedtl.report.canvas import Plot
from fedtl.report.plot_confusion import plot_confusion
from fedtl.report.plot_cost import plot_bytes, plot_epsilon, plot_seconds
from fedtl.report.plot_data import plot_examples, plot_labels
from fedtl.report.plot_personal import plot_personal
from fedtl.report.plot_quality import plot_rounds, plot_sites
from fedtl.report.result import RunResult

SECTIONS: dict[str, tuple[Callable[[RunResult], Plot | None], ...]] = {
    "How well it works": (plot_rounds, plot_sites, plot_personal, plot_confusion),
    "Privacy": (plot_epsilon,),
    "What the sites have": (plot_labels, plot_examples),
    "What it cost": (plot_seconds, plot_bytes),
}
"""Heading of a section to its figures; a figure that has nothing to show returns None."""


def draw_all(result: RunResult) -> dict[str, list[Plot]]:
    """Draw every figure for which the run has numbers.

    Returns
    -------
    dict of str to list of Plot
        By the headings of :data:`SECTIONS`; a section may be empty.
    """
    drawn = {heading: [make(result) for make in makers] for heading, makers in SECTIONS.items()}
    return {heading: [p for p in plots if p is not None] for heading, plots in drawn.items()}
