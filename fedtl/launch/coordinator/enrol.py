"""Enrolment: a site's public key is let in, and the site gets an invitation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtl.errors import ConfigError, TransportError
from fedtl.home import write_atomic
from fedtl.launch.coordinator.config import Coordinator, read_server
from fedtl.launch.coordinator.given import roots
from fedtl.launch.coordinator.link import check_up, register, unregister
from fedtl.launch.coordinator.sites import enrolled, enrolled_site, forget_site, keep_site
from fedtl.recipe import load_recipe
from fedtl.site.folder import check_name
from fedtl.site.invitation import Invitation
from fedtl.site.node_key import node_fingerprint

_LARGEST_KEY = 1 << 12


def invite(
    folder: Path,
    name: str,
    *,
    key: Path,
    out: Path,
    recipes: Sequence[Path] = (),
    again: bool = False,
) -> tuple[Invitation, str]:
    """Enrol a site by its public key, and write its invitation.

    Parameters
    ----------
    folder : Path
        The coordinator's; its server has to be up.
    name : str
        The site's.
    key : Path
        The site's ``node.pub``.
    out : Path
        Where the invitation goes.
    recipes : sequence of Path
        What the invitation is about; none: any recipe of this coordinator.
    again : bool
        Write the invitation of an enrolled site anew, with the same key.

    Returns
    -------
    tuple of Invitation and str
        The invitation, and the fingerprint of the site's key.

    Raises
    ------
    FedtlError
        The name, the key or a recipe cannot be used; the site or key is enrolled already; the
        server is not up.
    """
    coordinator = read_server(folder)
    check_name(name)
    digests = tuple(load_recipe(recipe).digest() for recipe in recipes)
    _check_public(key)
    fingerprint = node_fingerprint(key)
    invitation = _invitation(coordinator, name, digests)
    if again:
        _check_same(coordinator, name, fingerprint)
    else:
        _check_new(coordinator, name, fingerprint, out)
        _enrol(coordinator, name, key, fingerprint)
    text = invitation.to_toml().encode()
    write_atomic(out, lambda file: file.write(text))
    return invitation, fingerprint


def remove(folder: Path, name: str) -> None:
    """Let a site in no longer.

    Raises
    ------
    FedtlError
        No such site is enrolled, or the server is not up.
    """
    coordinator = read_server(folder)
    site = enrolled_site(coordinator.folder, name)
    unregister(coordinator.folder, site.node)
    forget_site(coordinator.folder, name)


def _invitation(coordinator: Coordinator, name: str, recipes: tuple[str, ...]) -> Invitation:
    return Invitation(
        site=name,
        address=coordinator.config.address,
        coordinator=coordinator.identity().public.hex(),
        recipes=recipes,
        certificates=roots(certificate=coordinator.certificate, ca=coordinator.ca),
    )


def _enrol(coordinator: Coordinator, name: str, key: Path, fingerprint: str) -> None:
    try:
        node_id = register(coordinator.folder, key, name)
    except TransportError as error:
        if "already in use" not in str(error):
            raise
        raise ConfigError(
            f"SuperLink knows the key '{fingerprint}' from a site that was removed.",
            next_step="A removed key stays out: the site deletes node.key and node.pub, makes new "
            "ones with `fedtl site join`, and sends the new node.pub.",
            code="server.key-removed",
        ) from error
    text = " ".join(key.read_text("ascii").split()[:2])
    keep_site(coordinator.folder, name=name, node_id=node_id, fingerprint=fingerprint, key=text)


def _check_public(key: Path) -> None:
    """Refuse a private key, which has travelled now."""
    try:
        with key.open("rb") as file:
            text = file.read(_LARGEST_KEY)
    except OSError:
        return  # told by whoever reads the fingerprint
    if b"PRIVATE KEY" in text:
        raise ConfigError(
            f"'{key}' is a private key. It has left the site, so it is secret no longer.",
            next_step="Delete it here. The site deletes node.key and node.pub, makes new ones with "
            "`fedtl site join`, and sends node.pub only.",
            code="server.private-key",
        )


def _check_new(coordinator: Coordinator, name: str, fingerprint: str, out: Path) -> None:
    for site in enrolled(coordinator.folder):
        if site.name.casefold() == name.casefold():
            same = site.fingerprint == fingerprint
            raise ConfigError(
                f"A site is enrolled as '{site.name}' already, with "
                + ("this key." if same else f"another key ({site.fingerprint})."),
                next_step=f"To write its invitation anew add --again; for another key or site "
                f"first run `fedtl server remove {site.name}`, or choose another name.",
                code="server.name-taken",
            )
        if site.fingerprint == fingerprint:
            raise ConfigError(
                f"This key is enrolled already, as '{site.name}'.",
                next_step="Each site has a key of its own: ask for the right node.pub, or run "
                f"`fedtl server remove {site.name}` if the site has changed its name.",
                code="server.key-taken",
            )
    if out.exists():
        raise ConfigError(
            f"'{out}' is there already; nothing was done.",
            next_step="Delete it, or give another file with --out.",
            code="config.exists",
        )
    check_up(coordinator.folder)


def _check_same(coordinator: Coordinator, name: str, fingerprint: str) -> None:
    site = enrolled_site(coordinator.folder, name)
    if site.fingerprint != fingerprint:
        raise ConfigError(
            f"'{name}' is enrolled with another key ({site.fingerprint}).",
            next_step=f"First run `fedtl server remove {name}`, then invite it without --again.",
            code="server.name-taken",
        )
