"""The one door to timm: everything else in fedtl asks here for an architecture."""

from __future__ import annotations

import contextlib
import functools
import importlib
from types import ModuleType
from typing import Any

from fedtl.errors import BackboneError, nearest

_MISSING_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


_schemas: list[Any] = []  # a Library takes its schemas with it when it is collected


@functools.cache
def timm() -> ModuleType:
    """Import timm, also where torchvision's compiled operators do not fit the installed torch.

    timm imports torchvision, and a torchvision built for CUDA fails beside a CPU torch with
    ``RuntimeError: operator torchvision::nms does not exist``. Declaring the two operators is all
    that import needs; fedtl never calls them. Where they are there, declaring them first would end
    the process.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _declare_operators()
    except ImportError:  # timm says so itself, if it needs it
        pass
    import timm as module

    return module


def _declare_operators() -> None:
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _schemas.append(library)
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it exists already
            library.define(f"{name}{_MISSING_SCHEMA}")


def known(pattern: str = "", *, pretrained: bool = False) -> list[str]:
    """Return the architectures whose name matches a pattern with ``*``; all by default.

    Parameters
    ----------
    pretrained : bool
        Only those with pretrained weights somewhere.
    """
    names = timm().list_models(pattern, pretrained=pretrained)
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def check_known(name: str) -> None:
    """Refuse an architecture that timm does not know.

    Raises
    ------
    BackboneError
        ``name`` is not a timm architecture; lists the nearest ones.
    """
    if ":" not in name and "/" not in name and timm().is_model(name):
        return
    raise BackboneError(
        f"backbone {name!r} is not an architecture of timm {timm().__version__}.",
        next_step=nearest(name, known()),
        code="backbone.unknown",
    )


def create(name: str, **options: Any) -> Any:
    """Return ``timm.create_model(name, **options)`` after checking the name."""
    check_known(name)
    return timm().create_model(name, **options)


def data_config(body: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return timm's evaluation data configuration of a model, with ``overrides`` laid on top."""
    data: Any = importlib.import_module(f"{timm().__name__}.data")
    known = {**body.pretrained_cfg, **overrides}
    resolved: dict[str, Any] = data.resolve_data_config({}, pretrained_cfg=known, verbose=False)
    return resolved
