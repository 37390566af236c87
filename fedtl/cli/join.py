"""``fedtl site join``: take the invitation of a coordinator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.screen import say
from fedtl.errors import ConfigError

if TYPE_CHECKING:
    from fedtl.site.invitation import Invitation


def join(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's state folder.")],
    invitation: Annotated[
        Path, typer.Argument(metavar="INVITATION", help="The file that the coordinator sent.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="The fingerprint was compared already.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Leave the federation of another coordinator.")
    ] = False,
) -> None:
    """Join a federation: whom this site answers, and where its server is.

    The invitation holds nothing secret, but who could change it on its way could lead this site
    elsewhere. So compare the fingerprint that is shown with the coordinator's, by telephone.
    """
    from fedtl.site.config import read_site
    from fedtl.site.invitation import read_invitation
    from fedtl.site.joining import check_invitation, keep_invitation
    from fedtl.site.node_key import make_node_key, node_fingerprint

    site, found = read_site(folder), read_invitation(invitation)
    check_invitation(site, found, replace=replace)
    public = make_node_key(folder)
    say(*_about(found))
    if not yes:
        _confirm()
    keep_invitation(folder, found)
    say(
        f"'{site.config.name}' has joined. Its own key is {node_fingerprint(public)}.",
        f"Next: fedtl site up '{folder}'",
    )


def _about(invitation: Invitation) -> list[str]:
    from fedtl.site.names import spoken

    recipes = [recipe[:16] + "..." for recipe in invitation.recipes]
    return [
        f"Server: {invitation.address}",
        f"Recipes: {', '.join(recipes) or 'any of this coordinator'}",
        "Fingerprint of the coordinator's key:",
        f"  {spoken(invitation.fingerprint)}",
    ]


def _confirm() -> None:
    """Ask a person whether the fingerprint is right; where nobody is, do not go on.

    Raises
    ------
    ConfigError
        With code ``join.unconfirmed``.
    """
    if sys.stdin.isatty() and typer.confirm("Did the coordinator tell you the same?", err=True):
        return
    raise ConfigError(
        "The coordinator's fingerprint is not confirmed; nothing was changed.",
        next_step="Call the coordinator and compare it. If it is the same, run this again with "
        "--yes. If not, the file was changed on its way: do not use it.",
        code="join.unconfirmed",
    )
