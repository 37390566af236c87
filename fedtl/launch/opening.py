"""From tables of settings to what they name: backbone, device, and a site's own data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from sys import platform

from fedtl.backbone import BackboneCard, resolve
from fedtl.data import Manifest, SiteRows, open_data, partition
from fedtl.data.files import Progress
from fedtl.errors import ConfigError
from fedtl.launch.progress import Progress as Phases
from fedtl.launch.progress import silent
from fedtl.recipe import Backbone, Recipe
from fedtl.site.config import SiteConfig


def card_of(body: Backbone, *, offline: bool = False) -> BackboneCard:
    """Return the card of the backbone that a recipe or a ``site.toml`` names.

    Parameters
    ----------
    offline : bool
        Never ask the hub.

    Raises
    ------
    BackboneError
        See :func:`fedtl.backbone.resolve`.
    """
    return resolve(
        body.name,
        body.weights or None,
        taps=body.taps,
        image_size=body.image_size or None,
        offline=offline,
    )


def opened(recipe: Recipe, progress: Phases = silent) -> Manifest:
    """Open a recipe's data."""
    data = recipe.data
    return open_data(
        data.source,
        test_fraction=data.test_fraction,
        classes=data.classes,
        tolerate_unreadable=data.tolerate_unreadable,
        limit=data.limit,
        progress=partial(progress, "reading"),
    )


def cut(recipe: Recipe, manifest: Manifest) -> tuple[SiteRows, ...]:
    """Cut data into a recipe's sites."""
    how = recipe.partition
    return partition(
        manifest.labels,
        manifest.test,
        kind=how.kind,
        sites=0 if how.kind == "natural" else how.sites,
        seed=recipe.seed,
        alpha=how.alpha,
        classes_per_site=how.classes_per_site,
        groups=manifest.groups,
        natural=manifest.sites,
        min_examples=how.min_examples,
    )


def open_site_data(config: SiteConfig, progress: Progress, *, tolerate_unreadable: int) -> Manifest:
    """Open the data that a ``site.toml`` names.

    Raises
    ------
    ConfigError
        It names none.
    DataError
        They cannot be opened.
    """
    data = config.data
    if not data.source:
        raise ConfigError(
            "site.toml names no data: data.source in site.toml is empty.",
            next_step="Set data.source to a folder, .csv or .npz with this site's images, then "
            "run `fedtl site check`.",
        )
    return open_data(
        data.source,
        test_fraction=data.test_fraction,
        classes=data.classes,
        tolerate_unreadable=tolerate_unreadable,
        progress=progress,
    )


def accelerators() -> dict[str, str]:
    """Return the accelerators that torch can use, by kind; torch is asked where one may be."""
    if platform != "darwin" and not Path("/dev/nvidiactl").exists():
        return {}
    import torch

    found = {}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name(0)
    if torch.backends.mps.is_available():
        found["mps"] = "Apple MPS"
    return found


def checked_device(config: SiteConfig) -> dict[str, str]:
    """Return the accelerators that are there, the one that is wanted among them.

    Raises
    ------
    ConfigError
        It is not there.
    """
    found = accelerators()
    if config.device not in ("auto", "cpu", *found):
        there = ", ".join(f"{kind} ({name})" for kind, name in found.items())
        raise ConfigError(
            f"device = '{config.device}' is not there; found: {there or 'the CPU only'}.",
            next_step="Set device = 'auto' or 'cpu' in site.toml, or install the driver and torch "
            "for it.",
        )
    return found


def engine_of(config: SiteConfig) -> str:
    """Return the kind of engine that a site's settings ask for."""
    engine = config.backbone.engine
    return "onnx" if engine == "auto" and config.device == "cpu" else engine
