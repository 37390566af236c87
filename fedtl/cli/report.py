"""``fedtl report``: a run's report once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.screen import out
from fedtl.errors import CacheError

if TYPE_CHECKING:
    from fedtl.report.result import RunResult


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Print the summary of a run folder RUN and write its report.html again."""
    from fedtl.report.html import write_report
    from fedtl.report.table import print_summary

    result, page, console = load_result(run), run / "report.html", out()
    write_report(result, page)
    print_summary(result, console, run)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    if open_:
        import webbrowser

        webbrowser.open(page.absolute().as_uri())


def load_result(run: Path) -> RunResult:
    """Read a run's ``report.json``.

    Raises
    ------
    CacheError
        There is none, or it is damaged.
    """
    from fedtl.report.result import RunResult

    path = run / "report.json"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise CacheError(
            f"There is no report.json in '{run}'.",
            next_step="Name a run folder such as runs/digits-...; a run that was stopped before "
            "its first round ended has no report yet: `fedtl simulate --resume RUN`.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CacheError(
            f"'{path}' cannot be read: {error}.", next_step="Check its permissions."
        ) from error
    return RunResult.from_json(text, place=str(path))
