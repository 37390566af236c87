"""``fedtl server invite``, ``sites`` and ``remove``: who is let in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtl.cli.screen import out, print_json, say

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]


def invite(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")],
    key: Annotated[Path, typer.Option(help="The node.pub that the site sent.")],
    recipe: Annotated[
        list[Path] | None, typer.Option(help="Only for this recipe; may be repeated.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The invitation; default: SITE.invite.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Write the invitation of an enrolled site anew.")
    ] = False,
) -> None:
    """Let a site in by its public key, and write the invitation to send to it.

    Nothing in the invitation is secret. Compare both fingerprints with the site by telephone: who
    could change the files on their way could let in another key, or lead the site elsewhere.
    """
    from fedtl.launch.coordinator.enrol import invite as enrol
    from fedtl.site.names import spoken

    file = out_file or Path(f"{name}.invite")
    invitation, fingerprint = enrol(
        folder, name, key=key, out=file, recipes=recipe or (), again=again
    )
    lines = (
        f"Enrolled '{name}', and wrote '{file}'. Send it to the site, and compare by telephone:",
        f"  the site's key:    {fingerprint}",
        f"  the coordinator's: {spoken(invitation.fingerprint)}",
    )
    say(*lines)


def sites(
    folder: Folder = Path("coordinator"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the enrolled sites: node id, key, and whether they are connected."""
    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.coordinator.link import nodes
    from fedtl.launch.coordinator.sites import enrolled

    folder = read_server(folder).folder
    seen = nodes(folder)
    rows = []
    for site in enrolled(folder):
        node = seen.get(site.node)
        rows.append(
            {
                "site": site.name,
                "node_id": site.node_id,
                "fingerprint": site.fingerprint,
                "known": node is not None,
                "online": node is not None and node.online,
                "since": node.since if node else "",
            }
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        line = f"{row['site']:<20}  {_state(row):<32}  {row['node_id']:>20}  {row['fingerprint']}"
        out().print(line, markup=False, soft_wrap=True)
    if not rows:
        out().print("No site is enrolled. `fedtl server invite` enrols one.", markup=False)


def _state(row: dict[str, object]) -> str:
    if not row["known"]:
        return "unknown to SuperLink"
    if row["online"]:
        return f"online since {row['since']}"
    return f"offline since {row['since']}" if row["since"] else "never connected"


def remove(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")],
) -> None:
    """Let a site in no longer. Its key stays out for good; to come back it makes a new one."""
    from fedtl.launch.coordinator.enrol import remove as forget

    forget(folder, name)
    say(f"'{name}' is let in no longer.")
