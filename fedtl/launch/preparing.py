"""What it takes to make a site ready: its data, a backbone, and the features of both."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedtl.backbone import BackboneCard
from fedtl.backbone.probe import check_fits
from fedtl.data import Manifest
from fedtl.features import Features, extract, prepare
from fedtl.launch.federation import MEMORY, read_only
from fedtl.launch.opening import card_of, checked_device, engine_of, open_site_data
from fedtl.launch.personal import keeper
from fedtl.launch.progress import Progress
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.site.backbone import remember, remembered
from fedtl.site.config import SiteFolder
from fedtl.site.memory import Memory
from fedtl.site.site import Site
from fedtl.train.fit import Examples


def open_data(read: SiteFolder, progress: Progress) -> Manifest:
    """Read the data of a site, once it is known that the device it names is there.

    Raises
    ------
    ConfigError, DataError
        The device is not there, or the data cannot be read.
    """
    checked_device(read.config)
    tolerated = read.config.data.tolerate_unreadable
    return open_site_data(read.config, partial(progress, "reading"), tolerate_unreadable=tolerated)


def first_card(read: SiteFolder, *, offline: bool = False) -> BackboneCard | None:
    """Return the backbone that was sent last, or the one that ``site.toml`` names, or None.

    Parameters
    ----------
    offline : bool
        Never ask the hub.

    Raises
    ------
    BackboneError
        The one that is named cannot be found.
    """
    if read.policy.accept_backbones and (card := remembered(read.folder)) is not None:
        return card
    body = read.config.backbone
    return card_of(body, offline=offline) if body.name else None


def usable(folder: Path, card: BackboneCard) -> BackboneCard:
    """Return a backbone that was sent, once it was seen to work; a restart then knows it.

    Raises
    ------
    BackboneError
        See :func:`fedtl.backbone.probe.check_fits`.
    """
    check_fits(card)
    remember(folder, card)
    return card


def with_features(
    read: SiteFolder, manifest: Manifest, card: BackboneCard, *, ledger: Ledger, progress: Progress
) -> Site:
    """Make or find the features of a site's data, and return the site that has them.

    Raises
    ------
    FedtlError
        The backbone, a picture or the cache cannot be used.
    """
    config = read.config
    features = extract(
        manifest,
        card,
        engine=engine_of(config),
        threads=config.threads or None,
        precision=config.backbone.precision,
        progress=partial(progress, "features"),
    )
    return Site(
        name=config.name,
        classes=manifest.classes,
        width=card.width + 1,
        backbone=card.digest(),
        load=lambda: (
            _examples(manifest, features, ~manifest.test),
            _examples(manifest, features, manifest.test),
        ),
        ledger=ledger,
        dataset=_records(manifest.subset(~manifest.test), ledger.salt),
        held_out_dataset=_records(manifest.subset(manifest.test), ledger.salt),
        policy=read.policy,
        memory=Memory(read.folder / MEMORY),
        keep_personal=keeper(read.folder, card, manifest.classes, int(manifest.test.sum())),
    )


def _examples(manifest: Manifest, features: Features, part: np.ndarray) -> Examples:
    chosen, x = manifest.subset(part), prepare(features, np.flatnonzero(part)).x
    return Examples.of(read_only(x), torch.from_numpy(chosen.labels), chosen.groups)


def _records(part: Manifest, salt: bytes) -> DataSet:
    return DataSet.of(part.digests, groups=part.groups, salt=salt)
