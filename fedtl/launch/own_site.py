"""From a site's state folder to the site that its agent serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedtl.backbone import resolve
from fedtl.data import Manifest, open_data
from fedtl.errors import ConfigError
from fedtl.features import Features, extract, prepare
from fedtl.home import write_atomic
from fedtl.launch.federation import read_only
from fedtl.launch.ledgers import LEDGER
from fedtl.launch.progress import Progress, silent
from fedtl.launch.site_check.machine import accelerators, engine_of
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.privacy.secagg import Identity
from fedtl.site.config import SiteConfig, SiteFolder
from fedtl.site.folder import PRIVATE_FILE
from fedtl.site.site import Site
from fedtl.train.fit import Examples

SOCKET, IDENTITY = "agent.sock", "identity.key"
"""Where in a state folder the agent listens, and the key by which other sites know this one."""


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
    data, body = config.data, config.backbone
    if not data.source:
        raise ConfigError(
            f"{config.name} has no data: data.source in site.toml is empty.",
            next_step="Name a folder, a .csv or a .npz, then run `fedtl site check`.",
        )
    _check_device(config)
    manifest = open_data(
        data.source,
        test_fraction=data.test_fraction,
        classes=data.classes,
        tolerate_unreadable=data.tolerate_unreadable,
        progress=partial(progress, "reading"),
    )
    card = resolve(
        body.name, body.weights or None, taps=body.taps, image_size=body.image_size or None
    )
    features = extract(
        manifest,
        card,
        engine=engine_of(config),
        threads=config.threads or None,
        precision=body.precision,
        progress=partial(progress, "features"),
    )
    train, held_out = (np.flatnonzero(part) for part in (~manifest.test, manifest.test))
    with Ledger.open(read.folder / LEDGER) as ledger:
        yield Site(
            name=config.name,
            classes=manifest.classes,
            width=card.width + 1,
            backbone=card.digest(),
            load=partial(_examples, manifest, features, train, held_out),
            ledger=ledger,
            dataset=_records(manifest, train, ledger.salt),
            held_out_dataset=_records(manifest, held_out, ledger.salt),
            policy=read.policy,
            identity=_identity(read.folder / IDENTITY),
        )


def _check_device(config: SiteConfig) -> None:
    if config.device not in ("auto", "cpu") and config.device not in accelerators():
        raise ConfigError(
            f"device = '{config.device}' in site.toml is not there.",
            next_step="Set device = 'auto' or 'cpu', or install the driver and torch for it; see "
            "`fedtl site check`.",
        )


def _examples(
    manifest: Manifest, features: Features, train: np.ndarray, held_out: np.ndarray
) -> tuple[Examples, Examples]:
    def part(rows: np.ndarray) -> Examples:
        y = torch.from_numpy(manifest.labels[rows])
        return Examples.of(read_only(prepare(features, rows).x), y, _groups(manifest, rows))

    return part(train), part(held_out)


def _groups(manifest: Manifest, rows: np.ndarray) -> list[str] | None:
    return None if manifest.groups is None else [manifest.groups[row] for row in rows]


def _records(manifest: Manifest, rows: np.ndarray, salt: bytes) -> DataSet:
    return DataSet.of(manifest.digests[rows], groups=_groups(manifest, rows), salt=salt)


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
