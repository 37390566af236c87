"""A study on the screen: one table, what its tests can find, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fedtl.report.study_files import columns, headings
from fedtl.report.study_result import StudyResult
from fedtl.report.study_stats import Row, power_note, table_of
from fedtl.report.words import clean, plural, short

SIGNIFICANT = 0.05
_DROPPED = ("p\n(ranks)", "seconds", "sent", "p", "seeds", "epsilon", "worst\nsite")
"""Columns that a narrow terminal does without, in this order; the files have them all."""


def fitting_table(result: StudyResult, rows: list[Row], console: Console) -> Table:
    """Return the table with as many columns as the console is wide enough for."""
    unbounded = console.options.update(max_width=10_000)
    for dropped in range(len(_DROPPED) + 1):
        table = study_table(result, rows, without=_DROPPED[:dropped])
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table


def study_table(result: StudyResult, rows: list[Row], *, without: Sequence[str] = ()) -> Table:
    """Return the table: means over seeds with 95 % intervals in percent, and tests.

    Parameters
    ----------
    without : sequence of str
        Headings of columns to leave out.
    """
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    shown = [(name, text) for name, text in columns(rows) if name not in without]
    for heading in headings(result):
        table.add_column(clean(heading), no_wrap=True)
    for heading, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    before: tuple[str, ...] | None = None
    for row in rows:
        if before not in (None, row.group):
            table.add_section()
        group = row.group if row.group != before else ("",) * len(row.group)
        first = [Text(short(label, 24), no_wrap=True) for label in (*group, row.label)]
        table.add_row(*first, *(Text(text(row)) for _, text in shown), style=style_of(row))
        before = row.group
    return table


def style_of(row: Row) -> str | None:
    """Return how a row stands out: by what is significant after the correction."""
    versus = row.versus
    if versus is None or versus.p_holm is None or versus.p_holm >= SIGNIFICANT:
        return None
    return "green" if versus.difference.mean > 0 else "red"


def notes_of(result: StudyResult, rows: list[Row]) -> list[str]:
    """Return what a reader of the table must know."""
    pairs = [row.versus.difference.n for row in rows if row.versus]
    tests = sum(row.versus is not None and row.versus.p_t is not None for row in rows)
    said = ["Accuracies in percent: mean over seeds ± half of its 95 % confidence interval."]
    if pairs:
        said.append(
            f"vs. baseline: paired with '{clean(result.baseline)}' by seed, in percentage points; "
            "p of the paired t-test, the same after Holm's correction, and of the exact "
            "signed-rank test."
        )
    said.append(power_note(min(pairs, default=len(result.seeds)), tests))
    if missing := result.wanted - len(result.cells):
        said.append(f"{plural(missing, 'cell')} of {result.wanted} missing.")
    return said


def failures_of(result: StudyResult) -> list[str]:
    """Return a line for each problem that cells failed with, and the first of these cells."""
    cells: dict[str, list[str]] = {}
    for title, problem in result.failed.items():
        cells.setdefault(problem, []).append(title)
    return [
        f"{clean(min(titles))}"
        + (f" and {plural(len(titles) - 1, 'cell')} more" if len(titles) > 1 else "")
        + f": {clean(problem)}"
        for problem, titles in cells.items()
    ]


def print_study(result: StudyResult, console: Console, folder: Path) -> None:
    """Print what a study found out.

    Parameters
    ----------
    console : rich.console.Console
        Where to print; plain text where it is not a terminal.
    folder : Path
        The study's folder, named in the last line.
    """
    rows = table_of(result)
    if rows:
        console.print(fitting_table(result, rows, console))
    for note in notes_of(result, rows):
        console.print(Text(note, style="dim"))
    for line in failures_of(result):
        console.print(Text(f"Failed: {line}", "red"), soft_wrap=True)
    console.print(Text(f"Results: {folder}"), soft_wrap=True)
