"""``fedtl doctor``: what this machine has, what is wrong with it, and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.screen import err, out, print_findings, print_json, warnings_shown

if TYPE_CHECKING:
    from fedtl.types import Finding

EXAMPLES = (
    "Examples:\n\nfedtl doctor\n\nfedtl doctor --site site/\n\nfedtl doctor --server coordinator/"
)


def doctor(
    site: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A site's folder; default: found here.")
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A coordinator's folder; default: found here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this installation, and the site or server of a federation on this machine.

    Asks a federation's server how it is, as the site would. The exit code is 1 if something is
    broken.
    """
    console, everything = err(), []
    with warnings_shown(console):
        for title, findings in _examined(site, server):
            everything += findings
            if not as_json:
                out().print(title, style="bold", markup=False)
                print_findings(findings)
    if as_json:
        print_json([asdict(finding) for finding in everything])
    if any(finding.state == "broken" for finding in everything):
        raise typer.Exit(1)


def _examined(site: Path | None, server: Path | None) -> Iterator[tuple[str, list[Finding]]]:
    """Yield what is found, by title; where nothing is named, what lies here is looked at."""
    from fedtl.cli.findings import examine
    from fedtl.launch.doctor import found_server, found_site

    yield "Installation", examine()
    if site is None and server is None:
        site, server = found_site(), found_server()
    if site is not None:
        from fedtl.launch.doctor.site import diagnose_site

        yield "Site", list(diagnose_site(site))
    if server is not None:
        from fedtl.launch.doctor.server import diagnose_server

        yield "Server", list(diagnose_server(server))
