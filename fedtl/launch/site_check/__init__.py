"""``fedtl site check``: whether a site is ready, and its data are what their owner thinks.

Nothing of the data leaves the machine. Once the site has joined a federation, its server is asked
how it is, as anybody could; without ``connect`` no network connection is opened at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fedtl.backbone import BackboneCard
from fedtl.data import Manifest
from fedtl.errors import FedtlError
from fedtl.launch.doctor.reach import look_at_server
from fedtl.launch.preparing import first_card
from fedtl.launch.progress import Progress, silent
from fedtl.launch.site_check import machine, privacy
from fedtl.launch.site_check.data import look_at_data, open_all
from fedtl.launch.site_check.guard import broken, guarded
from fedtl.launch.site_check.pictures import look_at_pictures
from fedtl.report.site_page import Chapter
from fedtl.site.config import SiteConfig, SiteFolder
from fedtl.types import Finding

PAGE = "check.html"


def examine_site(
    site: SiteFolder, progress: Progress = silent, *, connect: bool = True
) -> list[Chapter]:
    """Look at everything; what fails is a finding, and the rest is looked at all the same.

    Parameters
    ----------
    site : SiteFolder
        From :func:`fedtl.site.config.read_site`.
    progress : Progress
        Called with phase, done and total, from any thread.
    connect : bool
        Whether the federation's server is asked how it is.
    """
    config = site.config
    manifest, chapters = _data(config, progress)
    card, told = _backbone(site)
    body = [told] if told else []
    if manifest is not None and card is not None:
        chapters.append(look_at_pictures(manifest, card, partial(progress, "images")))
        body.append(Finding("backbone", "ok", f"{card.architecture}, {card.width} features"))
    chapters.append(Chapter("Machine", tuple([*body, *_machine(site, manifest, card)])))
    chapters.append(Chapter("Privacy", tuple(_privacy(site, manifest))))
    server = guarded("server", partial(_server, config, connect=connect))
    chapters.append(Chapter("Federation", tuple(server)))
    return chapters


def _data(config: SiteConfig, progress: Progress) -> tuple[Manifest | None, list[Chapter]]:
    try:
        manifest = open_all(config, partial(progress, "reading"))
    except FedtlError as error:
        return None, [Chapter("Data", (broken("data", error),))]
    return manifest, [look_at_data(manifest, config)]


def _backbone(site: SiteFolder) -> tuple[BackboneCard | None, Finding | None]:
    try:
        card = first_card(site, offline=True)
    except FedtlError as error:
        return None, broken("backbone", error)
    if card is None:
        what = "it comes from the coordinator with the first run; features are made then"
        return None, Finding("backbone", "note", what, "Check again after the first run.")
    return card, None


def _machine(
    site: SiteFolder, manifest: Manifest | None, card: BackboneCard | None
) -> Iterator[Finding]:
    yield from guarded("device", partial(machine.look_at_device, site.config))
    if manifest is not None and card is not None:
        yield from guarded(
            "features", partial(machine.look_at_features, manifest, card, site.config)
        )
    yield from guarded("clock", partial(machine.look_at_clock, site.folder))


def _privacy(site: SiteFolder, manifest: Manifest | None) -> Iterator[Finding]:
    yield from privacy.policy_in_words(site.policy, there=site.has_policy)
    if manifest is not None:
        yield from privacy.policy_against_data(site.policy, manifest)
    yield from guarded("ledger", partial(privacy.look_at_ledger, site, manifest))
    yield from guarded("place", partial(privacy.look_at_place, site))
    yield from guarded("permissions", partial(privacy.look_at_permissions, site.folder))


def _server(config: SiteConfig, *, connect: bool) -> Iterator[Finding]:
    server, roots = config.server, Path(config.server.root_certificates)
    if not server.address:
        what = "none is named; it is not needed to check the data"
        yield Finding("server", "ok", what, "Join when the invitation comes: fedtl site join")
    elif connect and roots.is_file():
        yield from look_at_server(server.address, roots, os.environ)
    else:
        yield Finding("server", "ok", f"{server.address} (not contacted)")
    for key in ("root_certificates", "private_key", "public_key"):
        path = getattr(server, key)
        if path and not Path(path).expanduser().is_file():
            what = f"server.{key} = '{path}' is no file"
            yield Finding(key, "broken", what, "Copy the file there, or correct the path.")
        elif path:
            yield Finding(key, "ok", "there")
