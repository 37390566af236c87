"""``fedtl site up``, ``down``, ``status``, ``log`` and ``ledger``: a site that takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtl.cli.ledger import AsJson, Delta, show
from fedtl.cli.screen import print_findings, print_json, print_log, say

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's state folder.")]
_DEFAULT = Path("site")


def up(
    folder: Folder = _DEFAULT,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until SIGTERM; for systemd and containers.")
    ] = False,
    metrics: Annotated[
        int | None, typer.Option(help="Port on loopback for Prometheus; default: site.toml's.")
    ] = None,
) -> None:
    """Start this site: its agent, and Flower's SuperNode, which looks for the server.

    Both are started again whenever they end. The agent reads data and makes features meanwhile.
    """
    from fedtl.launch.site_services import up as start

    site = start(folder, foreground=foreground, metrics=metrics)
    say(
        f"'{site.config.name}' is up, and looks for {site.config.server.address}.",
        f"How it is: fedtl site status '{folder}'",
    )


def down(folder: Folder = _DEFAULT) -> None:
    """Stop this site; a training that goes on is finished or given up, and nothing is lost."""
    from fedtl.launch import services
    from fedtl.site.config import read_site

    stopped = services.stop(read_site(folder).folder)
    say("Stopped." if stopped else "It was not running.")


def status(
    folder: Folder = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show agent, connection, preparation and budget; the exit code is 1 if something is broken."""
    from fedtl.launch.site_state import facts, findings, site_state
    from fedtl.site.config import read_site

    state = site_state(read_site(folder))
    found = list(findings(state))
    if as_json:
        print_json(facts(state, found))
    else:
        say(state.site.config.name)
        print_findings(found)
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(1)


def log(
    folder: Folder = _DEFAULT,
    service: Annotated[str, typer.Argument(help="agent, supernode or services.")] = "agent",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print the end of a service's log; it may name files of this site, and stays here."""
    from fedtl.launch import services
    from fedtl.launch.site_services import AGENT, SUPERNODE
    from fedtl.site.config import read_site

    known = (AGENT, SUPERNODE, services.KEEPER)
    print_log(service, known, lambda: read_site(folder).folder, lines, follow=follow)


def ledger(folder: Folder = _DEFAULT, delta: Delta = 1e-5, as_json: AsJson = False) -> None:
    """Show what this site has spent: `fedtl ledger show` on its own ledger."""
    from fedtl.site.config import read_site

    show(read_site(folder).folder, delta=delta, plot=None, as_json=as_json)
