"""From a name to a card, once; the next time the card is simply remembered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtl.backbone import store
from fedtl.backbone.card import SIZES, BackboneCard, check_card
from fedtl.backbone.taps import AUTO, automatic, normalise, stages
from fedtl.errors import BackboneError

RANDOM = "random:"
"""Begins the name of weights that nobody trained."""

if TYPE_CHECKING:
    from fedtl.backbone.weights import Weights


def resolve(
    name: str,
    weights: str | Path | None = None,
    *,
    taps: str | Sequence[str] = "auto",
    image_size: int | None = None,
    offline: bool = False,
) -> BackboneCard:
    """Bring a backbone into the store and return its card.

    With a warm store this imports neither torch nor timm.

    Parameters
    ----------
    name : str
        A timm architecture, or a folder as timm's hub has them, written with a slash.
    weights : str or Path, optional
        A weight file or such a folder; or ``random:SEED`` for an untrained body, to compare with.
        Without it: the store, a package that carries the weights, the hub, in this order.
    taps : str or Sequence of str
        ``"auto"``, ``"final"``, or names as in :mod:`fedtl.backbone.taps`, as a sequence or
        separated by commas.
    image_size : int, optional
        Side of the pictures in pixels; the one the weights were trained for by default.
    offline : bool
        Never ask the hub; what it left in its cache on this machine is used all the same.

    Raises
    ------
    BackboneError
        The name, a tap or the size is unknown, or no usable weights are found.
    """
    if weights is None and "/" in name.replace(os.sep, "/") and Path(name).is_dir():
        name, weights = _named_in(Path(name)), name
    if image_size is not None and image_size not in SIZES:
        raise BackboneError(
            f"image_size is {image_size}.", next_step=f"Use {SIZES[0]} to {SIZES[-1]} pixels."
        )
    untrained = str(weights) if str(weights or "").startswith(RANDOM) else ""
    place = Path(weights).expanduser().resolve() if weights is not None and not untrained else None
    request = store.Request(name, untrained or str(place or ""), normalise(taps), image_size or 0)
    if known := store.recall(request):
        return known
    return _resolve_anew(request, place, offline=offline)


def _named_in(folder: Path) -> str:
    from fedtl.backbone.weights import read_config

    if architecture := read_config(folder).get("architecture"):
        return str(architecture)
    raise BackboneError(
        f"The folder '{folder}' has no config.json that names an architecture.",
        next_step="Name the architecture and pass the folder as `weights`.",
    )


def _resolve_anew(request: store.Request, place: Path | None, *, offline: bool) -> BackboneCard:
    from safetensors.torch import save

    from fedtl.backbone import architectures
    from fedtl.backbone.weights import from_name, from_path, from_seed

    architectures.check_known(request.name)
    if place:
        found = from_path(request.name, place)
    elif request.weights:
        found = from_seed(request.name, request.weights)
    else:
        found = from_name(request.name, offline=offline)
    sha256 = store.put(save(found.tensors))
    card = _describe(request, found, sha256)
    store.write_card(card)
    store.remember(request, card, found.origin)
    return card


def _describe(request: store.Request, found: Weights, sha256: str) -> BackboneCard:
    """Load the weights into the architecture and read off what the card says."""
    from fedtl.backbone import architectures
    from fedtl.backbone.model import resize

    body = architectures.create(request.name, pretrained=False, num_classes=0)
    body.load_state_dict(found.tensors)
    config = _data_configuration(architectures.data_config(body, found.config))
    image_size = request.image_size or config["native_size"]
    resize(body, image_size)
    names, widths = _measure(body, request.taps, image_size)
    card = BackboneCard(
        architecture=request.name,
        sha256=sha256,
        source=found.source,
        licence=found.licence,
        **config,
        image_size=image_size,
        taps=names,
        tap_widths=widths,
        timm_version=str(architectures.timm().__version__),
    )
    check_card(card)
    return card


def _data_configuration(config: dict[str, Any]) -> dict[str, Any]:
    """Read the fields of a card from a data configuration, which may come from outside."""
    try:
        mean, std = (tuple(map(float, config[name])) for name in ("mean", "std"))
        native_size = int(config["input_size"][1])
        if len(mean) == len(std) == 3 and native_size in SIZES:
            return {
                "mean": mean,
                "std": std,
                "interpolation": str(config["interpolation"]),
                "crop_pct": float(config["crop_pct"]),
                "crop_mode": str(config.get("crop_mode", "center")),
                "native_size": native_size,
            }
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        pass
    raise BackboneError(
        f"The data configuration {config} cannot be used.",
        next_step="Mend 'pretrained_cfg' in the config.json beside the weights.",
        code="backbone.config",
    )


def _measure(
    body: Any, wanted: tuple[str, ...], image_size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the taps and their widths, found by sending two random pictures through."""
    import torch

    from fedtl.backbone.model import Backbone, unfit

    names = automatic(stages(body)) if wanted == AUTO else wanted
    backbone = Backbone(body, names)
    x = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        parts = dict(zip(names, backbone.tapped(x), strict=True))
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
        raise unfit(body, image_size) from error
    if wanted == AUTO:
        parts = _without_twin(parts)
    return tuple(parts), tuple(int(part.shape[1]) for part in parts.values())


def _without_twin(parts: dict[str, Any]) -> dict[str, Any]:
    """Leave out a last stage that says what the head says, as in a ResNet, where it is the head."""
    *_, last, head = [None, *parts]
    twin = last and parts[last].shape == parts[head].shape and parts[last].allclose(parts[head])
    return {name: part for name, part in parts.items() if not (twin and name == last)}
