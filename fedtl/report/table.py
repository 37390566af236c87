"""The end of a run in the terminal: one table, a few lines, and where the results lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedtl.report.order import by_accuracy, extremes, worst_site
from fedtl.report.plot_personal import ahead
from fedtl.report.result import GLOBAL_HEAD, RunResult, SiteResult, not_evaluated
from fedtl.report.words import clean, count, percent, plural, privacy, short, size, told

MOST_ROWS = 30
"""Sites a terminal is shown; of more, the worst and the best."""

_PERSONAL = ("site", "alone", "global", "pers.", "used", "uses", "pers. - alone (95 %)")


def summary_table(result: RunResult) -> Table:
    """Return one row per site and a total row.

    At most :data:`MOST_ROWS` sites are shown: of more, those where the global head does worst and
    best.

    Parameters
    ----------
    result : RunResult
        A finished or stopped run; whatever it lacks is shown as "-".
    """
    table = Table(box=box.SIMPLE, show_footer=True, pad_edge=False, padding=(0, 1))
    for heading, total in zip(_headings(result), _totals(result), strict=True):
        side = "left" if heading == "site" else "right"
        table.add_column(heading, total, justify=side, no_wrap=True, footer_style="bold")  # type: ignore[arg-type]
    worst, shown = worst_site(result), _shown(result)
    for site in shown:
        is_worst = worst is not None and site.name == worst.name
        table.add_row(*_row(site, result, is_worst=is_worst), style="red" if is_worst else None)
    if left_out := len(result.sites) - len(shown):
        table.add_row(Text(f"({count(left_out)} more)", style="dim"))
    return table


def personal_table(result: RunResult) -> Table:
    """Return which head each site uses, and how it compares with training alone."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for heading in _PERSONAL:
        table.add_column(heading, justify="left" if heading in ("site", "uses") else "right")
    for site in _shown(result):
        if (own := site.personal) is not None:
            shares = (own.alone, own.global_head, site.accuracy, own.used)
            cells = [*map(percent, shares), own.choice, ahead(own.personal_ahead)]
            table.add_row(Text(short(site.name, 14)), *map(Text, cells))
    return table


def _headings(result: RunResult) -> list[str]:
    first = ["site", "train", "test", _short(result), "local\non own", "local\non all"]
    both = ["eps.\ntrain", "eps.\nheld"]
    return [*first, *(both if result.metrics == "noised" else ["epsilon\nspent"]), "sent\nup"]


def _short(result: RunResult) -> str:
    return "global\nhead" if result.heads == GLOBAL_HEAD else "pers.\nhead"


def _shown(result: RunResult) -> list[SiteResult]:
    if len(result.sites) <= MOST_ROWS:
        return result.sites
    return extremes(by_accuracy(result) or result.sites, MOST_ROWS)


def _row(site: SiteResult, result: RunResult, *, is_worst: bool) -> list[Text]:
    return [
        Text(short(site.name, 14) + (" *" if is_worst else "")),
        *(Text(told(n, result.suppress_below)) for n in (site.train, site.test)),
        *(Text(percent(x)) for x in (site.accuracy, site.local_own, site.local_all)),
        Text(privacy(None if result.epsilon is None else site.epsilon)),
        *([Text(privacy(site.epsilon_held_out))] if result.metrics == "noised" else []),
        Text(size(site.bytes_up)),
    ]


def _totals(result: RunResult) -> list[str]:
    sites = result.sites
    spent = None if result.epsilon is None else max((s.epsilon for s in sites), default=0.0)
    return [
        plural(len(sites), "site"),
        _sum(s.train for s in sites),
        _sum(s.test for s in sites),
        percent(result.accuracy),
        percent(result.accuracy_local_own),
        percent(result.accuracy_local_all),
        privacy(spent),
        *([privacy(_most_held_out(result))] if result.metrics == "noised" else []),
        size(sum(s.bytes_up for s in sites)),
    ]


def _sum(numbers: Iterable[int | None]) -> str:
    known = [n for n in numbers if n is not None]
    return count(sum(known)) if known else "-"


def _most_held_out(result: RunResult) -> float:
    return max((site.epsilon_held_out for site in result.sites), default=0.0)


def print_summary(result: RunResult, console: Console, folder: Path) -> None:
    """Print what a run found: accuracies, the table, the privacy guarantee, where things lie.

    Parameters
    ----------
    result : RunResult
        What to print.
    console : rich.console.Console
        Where to print; plain text where it is not a terminal.
    folder : Path
        The run's folder, named in the last line.
    """
    console.print()
    for label, value in _headlines(result):
        console.print(Text(f"{label:<42}{value:>8}"), soft_wrap=True)
    if result.metrics == "off":
        console.print(Text(f"The head was {not_evaluated(result)}.", style="yellow"))
    console.print(summary_table(result))
    if any(site.personal for site in result.sites):
        console.print(personal_table(result))
    if worst := worst_site(result):
        console.print(Text(f"* the site with the lowest accuracy: {clean(worst.name)}", "red"))
    for problem in result.problems:
        console.print(Text(f"Problem: {clean(problem)}", style="yellow"))
    console.print(Text(f"Privacy: {clean(result.guarantee)}"))
    console.print(Text(f"Results: {folder}"), soft_wrap=True)


def _headlines(result: RunResult) -> list[tuple[str, str]]:
    done = len(result.history)
    state = "" if result.status == "finished" else ", stopped"
    return [
        (f"{result.heads}, {done} of {result.rounds} rounds{state}", percent(result.accuracy)),
        ("The same run without privacy", percent(result.accuracy_without_privacy)),
        ("Local-only heads, mean, on own data", percent(result.accuracy_local_own)),
        ("Local-only heads, mean, on everybody's", percent(result.accuracy_local_all)),
    ]
