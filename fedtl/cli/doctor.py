"""``fedtl doctor``: what this machine has, what is wrong with it, and the cure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fedtl.cli.screen import print_findings, print_json


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this installation; the exit code is 1 if something is broken."""
    from fedtl.cli.findings import examine

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_findings(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
