"""``fedtl doctor``: what this machine has, what is wrong with it, and the cure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fedtl.cli.screen import out, print_json


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this installation; the exit code is 1 if something is broken."""
    from fedtl.cli.findings import examine

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        styles = {"broken": "red", "note": "yellow"}
        console = out()
        for finding in findings:
            line = f"{finding.state:<7}{finding.name:<20}{finding.what}"
            style = styles.get(finding.state)
            console.print(line, style=style, markup=False, soft_wrap=True)
            if finding.cure:
                console.print(f"{'':<27}-> {finding.cure}", markup=False, soft_wrap=True)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
