"""``fedtl ledger``: what a site has spent, whether its record is whole, what a recipe costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtl.cli.screen import clean_line, err, out, print_json
from fedtl.errors import CacheError, PrivacyError, RecipeError

if TYPE_CHECKING:
    from fedtl.privacy.ledger import DataSet, Ledger

app = typer.Typer(
    name="ledger",
    help="Look into the ledgers of sites: what was spent on what, and what is left.",
    epilog="Examples:\n\nfedtl ledger show runs/digits-...\n\n"
    "fedtl ledger show site/ledger.sqlite --plot spend.svg\n\nfedtl ledger verify site/\n\n"
    "fedtl ledger plan my.toml site/ --budget 8\n\nfedtl ledger export site/ > ledger.jsonl",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Where = Annotated[
    Path, typer.Argument(metavar="LEDGER", help="A ledger file, a site's folder or a run folder.")
]
Delta = Annotated[float, typer.Option(help="The delta at which epsilon is given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _opened(path: Path) -> Iterator[Ledger]:
    from fedtl.privacy.ledger import Ledger

    with Ledger.open(path, read_only=True) as ledger:
        yield ledger


@app.command(epilog="Example:\n\nfedtl ledger show runs/digits-... --plot spend.svg")
def show(
    where: Where,
    delta: Delta = 1e-5,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw spend over time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent on which data set: releases, and epsilon of the worst record."""
    from dataclasses import asdict

    from fedtl.launch.ledgers import ledgers_in
    from fedtl.privacy.accountant import check_delta
    from fedtl.report.ledger import draw_spend, spend_over_time, spends_of

    check_delta(delta)
    rows, lines = [], {}
    for site, file in ledgers_in(where).items():
        with _opened(file) as ledger:
            rows += spends_of(site, ledger, delta)
            for data in ledger.datasets() if plot else ():
                label = f"{site[:30]} {data.fingerprint[:8]}"
                lines[label] = spend_over_time(ledger, data, delta)
    if plot is not None:
        from fedtl.home import write_atomic

        svg = draw_spend(lines, delta)
        write_atomic(plot, lambda file: file.write(svg.encode()))
    if as_json:
        print_json([{**asdict(row), "event": json.loads(row.event)} for row in rows])
        return
    head = ["site", "data set", "unit", "units", "requests", "releases", "epsilon", "last (UTC)"]
    cells = [
        [r.site, r.data_set[:12], r.unit, r.units, r.requests, r.releases, r.epsilon] for r in rows
    ]
    _print_table(
        f"Spent by the worst unit of each data set, epsilon at delta {delta:g}",
        head,
        [[*line, _minute(row.last)] for line, row in zip(cells, rows, strict=True)],
    )
    if plot is not None:
        err().print(f"Plot: {plot}", markup=False, soft_wrap=True)


@app.command(epilog="Example:\n\nfedtl ledger verify site/ledger.sqlite")
def verify(where: Where, as_json: AsJson = False) -> None:
    """Check the chain of entries, data sets and replies; exit code 1 names the first bad entry.

    Keep the printed hash elsewhere: an old copy put in the file's place is whole as well.
    """
    from fedtl.launch.ledgers import ledgers_in

    found: list[dict[str, Any]] = []
    for site, file in ledgers_in(where).items():
        try:
            with _opened(file) as ledger:
                verified = ledger.verify()
            told = {"whole": True, "entries": verified.entries, "hash": verified.hash}
        except (CacheError, PrivacyError) as error:
            told = {"whole": False, "code": error.code, "problem": str(error)}
        found.append({"site": site, "file": str(file), **told})
    if as_json:
        print_json(found)
    for one in found if not as_json else ():
        said = f"{one['entries']} entries, last {one['hash']}" if one["whole"] else one["problem"]
        line = f"{'OK' if one['whole'] else 'BAD'}: {one['site']}: {said}"
        out().print(clean_line(line), markup=False, soft_wrap=True)
    if not all(one["whole"] for one in found):
        raise typer.Exit(1)


@app.command(epilog="Example:\n\nfedtl ledger plan my.toml site/ --budget 8 --days 365")
def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="The run that is planned.")],
    where: Where,
    budget: Annotated[
        float | None, typer.Option(metavar="EPSILON", help="What a data set may spend in all.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="The budget's period; default for ever.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe would cost on the data sets of a ledger; exit code 1 if over the budget."""
    from fedtl.launch.ledgers import ledgers_in
    from fedtl.recipe import load_recipe

    asked = load_recipe(recipe)
    if not asked.privacy.enabled:
        raise RecipeError(
            f"{recipe} trains without privacy (privacy.enabled = false), which has no price.",
            next_step="Set privacy.enabled = true, or decide by other means than a budget.",
        )
    if days is not None and budget is None:
        raise RecipeError(
            f"--days is {days:g}, but there is no --budget.", next_step="Give --budget EPSILON too."
        )
    at = asked.privacy.delta if delta is None else delta
    rows = []
    for site, file in ledgers_in(where).items():
        with _opened(file) as ledger:
            rows += _planned(site, ledger, asked, budget=budget, days=days, delta=at)
    if as_json:
        print_json(rows)
    else:
        columns = ["site", "data_set", "unit", "releases", "now", "cost", "after", "allowed"]
        _print_table(
            f"Epsilon at delta {at:g}: now, of {asked.name} alone, and both together",
            [name.replace("_", " ") for name in columns],
            [[row[name] for name in columns] for row in rows],
        )
    if not all(row["allowed"] in (True, None) for row in rows):
        raise typer.Exit(1)


def _planned(
    site: str, ledger: Ledger, asked: Any, *, budget: float | None, days: float | None, delta: float
) -> list[dict[str, Any]]:
    import time

    from fedtl.launch.plans import plan_of
    from fedtl.privacy.accountant import epsilon_of
    from fedtl.privacy.events import ComposedEvent, releases_of
    from fedtl.privacy.ledger import Budget

    limit = None if budget is None else Budget(budget, delta, days)
    rows = []
    for data in ledger.datasets():
        privacy = plan_of(asked, mean_size=float(data.units), sites=asked.partition.sites)
        if privacy is None:  # refused before
            continue
        held_out = _is_held_out(ledger, data)
        event = privacy.event(held_out=held_out)
        since = None if limit is None else limit.since(time.time())
        spent = ledger.spend(data, delta=delta, since=since)
        after = epsilon_of(ComposedEvent((spent, event)), delta)
        rows.append(
            {
                "site": site,
                "data_set": data.fingerprint[:12],
                "unit": data.unit,
                "releases": sum(r.count for r in releases_of(event)),
                "now": epsilon_of(spent, delta),
                "cost": epsilon_of(event, delta),
                "after": after,
                "delta": delta,
                "allowed": None if limit is None else after <= limit.epsilon,
            }
        )
    return rows


def _is_held_out(ledger: Ledger, data: DataSet) -> bool:
    """Say whether all that was ever asked of a data set were results on held-out records."""
    from fedtl.privacy.release import ABOUT_HELD_OUT
    from fedtl.wire.messages import MECHANISMS

    asked = {e.request.message for e in ledger.entries() if e.dataset == data.fingerprint}
    return all(MECHANISMS.get(kind) in ABOUT_HELD_OUT for kind in asked)


@app.command(epilog="Example:\n\nfedtl ledger export site/ > ledger.jsonl")
def export(where: Where) -> None:
    """Print every entry as one JSON object on a line, for other accountants and for keeping."""
    from fedtl.launch.ledgers import ledgers_in

    for site, file in ledgers_in(where).items():
        with _opened(file) as ledger:
            for line in ledger.export():
                print(json.dumps({"site": site, **json.loads(line)}))


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(_cell, row))
    out().print(table)


def _cell(value: Any) -> str:
    from rich.markup import escape

    from fedtl.report.words import count, privacy, short

    if value is None or isinstance(value, bool):
        return {True: "yes", False: "NO", None: "-"}[value]
    if isinstance(value, float):
        return privacy(value)
    return count(value) if isinstance(value, int) else escape(short(str(value), 28))
