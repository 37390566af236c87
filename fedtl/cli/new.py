"""``fedtl new``: files to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedtl.cli.screen import say

app = typer.Typer(
    name="new", help="Write files to begin with.", no_args_is_help=True, rich_markup_mode="rich"
)
EXAMPLES = "Examples:\n\nfedtl new strategy mine\n\nfedtl new strategy trimmed --folder strategies/"


@app.callback()
def _group() -> None:
    """Write files to begin with."""


@app.command(epilog=EXAMPLES)
def strategy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as my_strategy.")],
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where.")] = Path(),
) -> None:
    """Write a strategy of one page, and a test that tries it by all laws; both run as they are."""
    from fedtl.testing.template import class_name, write_strategy

    written, test = write_strategy(name, folder)
    target = shlex.quote(f"{written}:{class_name(name)}")
    say(
        f"Wrote {written} and {test}.",
        "Next:",
        f"  fedtl check-strategy {target}",
        f"  fedtl simulate --strategy {target}",
    )
