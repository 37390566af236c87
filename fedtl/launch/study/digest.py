"""What a cell's result depends on, in one digest: its recipe, its data, and the code that ran."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import fedtl
from fedtl.plugins import registered
from fedtl.recipe import Recipe
from fedtl.strategies import GROUP

FORMAT = 1
"""Of a study's folder and of the files in it."""
_LIBRARIES = ("flwr", "torch", "numpy", "scipy")
_NO_EFFECT = ("cli", "report", "testing", "agent", "audit", "launch/coordinator", "launch/doctor")
"""Parts of fedtl that no number of a cell depends on."""


def cell_digest(recipe: Recipe) -> str:
    """Return a sha256 that changes when a cell has to be run again.

    Files that the recipe names count by their size and time, a strategy's file by its content, and
    so do all files of an installed package that has it. Whatever else a strategy imports is not
    looked at.
    """
    plain = recipe.model_dump(exclude={"name", "compare", "federation"}, mode="json")
    kept = Recipe.model_validate(plain)
    parts = [str(FORMAT), kept.model_dump_json(), code_digest(), *_stamps(recipe)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def look_again() -> None:
    """Forget what files were like: they may have changed since a study before in this process."""
    _code_behind.cache_clear()
    _stamp.cache_clear()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a sha256 of fedtl's own code, as far as results depend on it, and its libraries."""
    root = Path(fedtl.__file__).parent
    found = hashlib.sha256(" ".join(map(version, _LIBRARIES)).encode())
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).as_posix()
        if not inside.startswith(tuple(f"{part}/" for part in _NO_EFFECT)):
            found.update(f"{inside}\n".encode() + path.read_bytes())
    return found.hexdigest()


def _stamps(recipe: Recipe) -> Iterator[str]:
    strategy = recipe.strategy
    for name in (strategy.name, *strategy.around):
        yield _code_behind(name)
    options = [o for given in (strategy.options, *strategy.around.values()) for o in given.values()]
    texts = [option for option in options if isinstance(option, str)]
    for named in (recipe.data.source, recipe.backbone.weights, recipe.backbone.name, *texts):
        yield _stamp(named)


@lru_cache(maxsize=64)
def _code_behind(name: str) -> str:
    """Return a sha256 of the file or package of a strategy; "" where it is fedtl's or Flower's."""
    target = name if ":" in name else min(registered(GROUP).get(name, {""}))
    place = target.rpartition(":")[0]
    files = [Path(place)] if place.endswith(".py") else _installed(place.partition(".")[0])
    contents = [file.read_bytes() for file in files if file.is_file()]
    return hashlib.sha256(b"\0".join(contents)).hexdigest() if contents else ""


def _installed(package: str) -> list[Path]:
    spec = None if package in ("", "fedtl", "flwr") else find_spec(package)
    if spec is None:
        return []
    folders = spec.submodule_search_locations
    inside = sorted(file for folder in folders or () for file in Path(folder).rglob("*.py"))
    return inside or ([Path(spec.origin)] if spec.origin else [])


@lru_cache(maxsize=64)
def _stamp(named: str) -> str:
    """Return names, sizes and times of what a path stands for; "" where it is no path."""
    path = Path(named).expanduser()
    if not named or not path.exists():
        return ""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = os.stat(file)
        found.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return found.hexdigest()
