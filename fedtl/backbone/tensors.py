"""Weight files from outside: read without running anything, and fitted to an architecture."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedtl.backbone import architectures
from fedtl.errors import BackboneError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_COUNTER = "num_batches_tracked"
_SHOWN = 5


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weight file, whoever wrote it, without running any code in it.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a pickle (``.pth``, ``.pt``, ``.bin``) of tensors alone.

    Raises
    ------
    BackboneError
        The file is missing, damaged, a pickle in disguise, or a pickle of more than tensors.
    """
    if not path.is_file():
        raise BackboneError(
            f"The weight file '{path}' does not exist.", next_step="Check the path."
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_pickle(path)
    raise BackboneError(
        f"The weight file '{path}' is of no known kind.",
        next_step="Name a .safetensors, .pth, .pt or .bin file.",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        disguised = "is a pickle, whatever its name says" if pickled else f"is damaged ({error})"
        raise _refuse(path, disguised) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise _refuse(path, "is compressed, which torch never does (a decompression bomb?)")
    try:
        with warnings.catch_warnings():
            # of a pickle protocol that torch then reads or refuses
            warnings.filterwarnings("ignore", ".*pickle protocol.*", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        problem = "holds more than tensors, and a pickle can run code"
        if not isinstance(error, pickle.UnpicklingError):
            problem = f"is damaged ({' '.join(str(error).split())[:200]})"
        raise _refuse(path, problem) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict inside the wrappings that training scripts put around it."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    fits = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not fits:
        raise _refuse(path, "is not a dictionary of named tensors")
    return {name.removeprefix("module."): value for name, value in content.items()}


def fit_by_position(
    found: Mapping[str, Tensor], architecture: str, *, place: str
) -> dict[str, Tensor]:
    """Give tensors timm's names where the file has them in timm's order but under other names.

    Raises
    ------
    BackboneError
        The count or any shape differs, or a value is not finite.
    """
    wanted = architectures.create(architecture, pretrained=False).state_dict()
    if len(found) != len(wanted):
        raise _misfit(architecture, place, [f"{len(found)} tensors, {len(wanted)} expected"])
    renamed = dict(zip(wanted, found.values(), strict=True))
    return fit_by_name(renamed, architecture, place=place)


def fit_by_name(found: Mapping[str, Tensor], architecture: str, *, place: str) -> dict[str, Tensor]:
    """Check tensors against an architecture, leave its classifier out, and make them float32.

    Raises
    ------
    BackboneError
        Names the tensors that are missing, unexpected, misshapen or not finite.
    """
    body = architectures.create(architecture, pretrained=False, num_classes=0)
    wanted = body.state_dict()
    heads = _classifiers(body)
    kept = {name: value for name, value in found.items() if name in wanted or name not in heads}
    for name in wanted.keys() - kept.keys():
        if name.endswith(_COUNTER):  # files older than torch 0.4.1 have no such counter
            kept[name] = wanted[name]
    if problems := [*_differences(kept, wanted), *_not_finite(kept)]:
        raise _misfit(architecture, place, problems)
    return {name: kept[name].to(wanted[name].dtype).contiguous() for name in wanted}


def _classifiers(body: Any) -> set[str]:
    """Return the names of the tensors of the classifier that a backbone does without."""
    named = body.pretrained_cfg.get("classifier") or ()
    modules = (named,) if isinstance(named, str) else tuple(named)
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    common = found.keys() & wanted.keys()
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(common)
        if found[name].shape != wanted[name].shape
    ]
    parts = {
        "missing": sorted(wanted.keys() - common),
        "unexpected": sorted(found.keys() - common),
        "misshapen": shapes,
    }
    return [f"{what}: {_some(names)}" for what, names in parts.items() if names]


def _not_finite(found: Mapping[str, Tensor]) -> list[str]:
    floats = {name: value for name, value in found.items() if value.is_floating_point()}
    names = sorted(name for name, value in floats.items() if not torch.isfinite(value).all())
    return [f"not finite: {_some(names)}"] if names else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _misfit(architecture: str, place: str, problems: list[str]) -> BackboneError:
    return BackboneError(
        f"The weights in '{place}' do not fit {architecture!r}: {'; '.join(problems)}.",
        next_step="Name the architecture they were made for, or bring an undamaged file.",
        code="backbone.weights",
    )


def _refuse(path: Path, problem: str) -> BackboneError:
    return BackboneError(
        f"The weight file '{path}' {problem}.",
        next_step="Bring the weights as a safetensors file from a source you trust.",
        code="backbone.weights",
    )
