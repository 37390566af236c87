"""Taking an invitation: what is checked before a site believes it, and where it is kept."""

from __future__ import annotations

from pathlib import Path

from fedtl.errors import ConfigError
from fedtl.home import write_atomic
from fedtl.site.config import ROOT_CERTIFICATES, SiteFolder
from fedtl.site.folder import PRIVATE_FILE
from fedtl.site.invitation import INVITATION_FILE, Invitation


def check_invitation(site: SiteFolder, invitation: Invitation, *, replace: bool = False) -> None:
    """Refuse an invitation that is not for this site, or not of the coordinator that it has.

    Parameters
    ----------
    site : SiteFolder
        The site that is to join, read.
    replace : bool
        Accept another coordinator than that of the federation it is in.

    Raises
    ------
    ConfigError
        ``join.site``: it is for another name. ``join.replace``: the site has another coordinator.
        ``join.policy``: its policy names other coordinators.
    """
    if invitation.site != site.config.name:
        raise ConfigError(
            f"The invitation is for '{invitation.site}', and this site is '{site.config.name}'.",
            next_step="Ask the coordinator for an invitation of this name, or change name in "
            "site.toml.",
            code="join.site",
        )
    before = site.invitation
    if before is not None and before.coordinator != invitation.coordinator and not replace:
        raise ConfigError(
            f"This site is in the federation of another coordinator ({before.fingerprint[:16]}...) "
            "already.",
            next_step="To leave that one and join this one, add --replace.",
            code="join.replace",
        )
    named = site.named_coordinators
    if named and invitation.fingerprint not in named:
        raise ConfigError(
            f"policy.toml does not name this coordinator ({invitation.fingerprint}).",
            next_step="Add its fingerprint to coordinators in policy.toml, or leave the list "
            "empty: then the invitation's coordinator is the only one who may ask.",
            code="join.policy",
        )


def keep_invitation(folder: Path, invitation: Invitation) -> None:
    """Keep an invitation in a state folder, and its certificates beside it for the SuperNode.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    _keep(folder / ROOT_CERTIFICATES, invitation.certificates)
    _keep(folder / INVITATION_FILE, invitation.to_toml())


def _keep(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()), mode=PRIVATE_FILE)
