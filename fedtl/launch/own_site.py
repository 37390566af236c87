"""From a site's state folder to the site that its agent serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedtl.data import Manifest
from fedtl.errors import ConfigError
from fedtl.features import Features, extract, prepare
from fedtl.home import write_atomic
from fedtl.launch.federation import read_only
from fedtl.launch.ledgers import LEDGER
from fedtl.launch.opening import card_of, checked_device, engine_of, open_site_data
from fedtl.launch.progress import Progress, silent
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.privacy.secagg import Identity
from fedtl.site.config import IDENTITY, SiteFolder
from fedtl.site.folder import PRIVATE_FILE
from fedtl.site.site import Site
from fedtl.train.fit import Examples

SOCKET = "agent.sock"
"""Where in a state folder the agent listens."""


@contextmanager
def own_site(read: SiteFolder, progress: Progress = silent) -> Iterator[Site]:
    """Open a site's data, make or find its features, and hold its ledger until the block is left.

    Where the data name groups such as patients, groups are what its records are: plans have to
    protect them.

    Raises
    ------
    FedtlError
        The data, the backbone, the key or the ledger cannot be used.
    """
    config = read.config
    checked_device(config)
    manifest = open_site_data(
        config,
        partial(progress, "reading"),
        tolerate_unreadable=config.data.tolerate_unreadable,
    )
    card = card_of(config.backbone)
    features = extract(
        manifest,
        card,
        engine=engine_of(config),
        threads=config.threads or None,
        precision=config.backbone.precision,
        progress=partial(progress, "features"),
    )
    with Ledger.open(read.folder / LEDGER) as ledger:
        yield Site(
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
            identity=_identity(read.folder / IDENTITY),
        )


def _examples(manifest: Manifest, features: Features, part: np.ndarray) -> Examples:
    chosen, x = manifest.subset(part), prepare(features, np.flatnonzero(part)).x
    return Examples.of(read_only(x), torch.from_numpy(chosen.labels), chosen.groups)


def _records(part: Manifest, salt: bytes) -> DataSet:
    return DataSet.of(part.digests, groups=part.groups, salt=salt)


def _identity(path: Path) -> Identity:
    """Return the site's lasting key; the first time it is made, for its owner's eyes only."""
    if not path.exists():
        new = Identity.new()
        write_atomic(path, lambda file: file.write(new.private), mode=PRIVATE_FILE)
        return new
    private = path.read_bytes()
    if len(private) != len(Identity.new().private):
        raise ConfigError(
            f"The key '{path}' is damaged.",
            next_step="Put it back from a copy. A new key is another site to the others: delete "
            "the file to have one made, and tell them.",
        )
    return Identity(private)
