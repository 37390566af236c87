"""``fedtl check-strategy``: whether a strategy keeps the laws of every strategy."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtl.cli.flags import toml_value
from fedtl.cli.screen import clean_line, out, print_json, say
from fedtl.errors import RecipeError

if TYPE_CHECKING:
    from fedtl.testing import Report, Verdict

EXAMPLES = (
    "Examples:\n\n"
    "fedtl check-strategy my_strategy.py:Mine\n\n"
    "fedtl check-strategy fedavgm --option server_momentum=0.9\n\n"
    "fedtl check-strategy median --around nnm\n\n"
    "fedtl check-strategy my_strategy.py:Mine --law order --law resume --json"
)
_STYLES = {"broken": "red", "kept": "green", "does not apply": "dim", "told": "cyan"}


def check_strategy(
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="path/to/file.py:Class, or a known name.")
    ],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="Of the strategy's constructor; repeatable."
        ),
    ] = None,
    around: Annotated[
        list[str] | None,
        typer.Option(
            "--around", metavar="WRAPPER", help="Such as nnm; repeatable, outermost first."
        ),
    ] = None,
    laws: Annotated[
        list[str] | None,
        typer.Option("--law", help="Look at this law only (ray: slow); repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try a strategy on a small real federation, and say which laws it breaks.

    STRATEGY is path/to/file.py:Class or a known name. A broken law comes with the input, what was
    expected and what was seen, and the exit code is 1. In a test: fedtl.testing.check_strategy.
    """
    given = dict(map(_option, options or ()))
    from fedtl.testing import examine

    wrappers: dict[str, dict[str, Any]] = {name: {} for name in around or ()}
    report = examine(strategy, options=given, around=wrappers, laws=laws or ())
    if as_json:
        print_json({"strategy": report.name, "verdicts": [asdict(v) for v in report.verdicts]})
    else:
        _print(report)
    if report.broken:
        raise typer.Exit(1)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            f"--option is {text!r}.", next_step="Write KEY=VALUE, for example --option eta=0.1."
        )
    return key.strip(), toml_value(value.strip())


def _print(report: Report) -> None:
    from rich.table import Table

    table = Table("law", "", "", title=report.name, title_justify="left", box=None, pad_edge=False)
    for verdict in report.verdicts:
        style = _STYLES[verdict.outcome]
        table.add_row(verdict.law, f"[{style}]{verdict.outcome}[/]", _short(verdict))
    out().print(table)
    for verdict in report.broken:
        say("", *verdict.describe().splitlines())
    n, broken = len(report.verdicts), len(report.broken)
    say("", f"{broken} of {n} laws broken." if broken else "No law is broken.")


def _short(verdict: Verdict) -> str:
    from rich.markup import escape

    return escape(clean_line(verdict.says if verdict.outcome == "kept" else verdict.seen))
