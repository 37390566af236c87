"""What a cell's result depends on, in one digest: its recipe, its data, and the code that ran."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import fedtl
from fedtl.recipe import Recipe

FORMAT = 1
"""Of a study's folder and of the files in it."""
_LIBRARIES = ("flwr", "torch", "numpy", "scipy")
_NO_EFFECT = ("cli", "report", "testing", "agent", "audit", "launch/coordinator", "launch/doctor")
"""Parts of fedtl that no number of a cell depends on."""


def cell_digest(recipe: Recipe) -> str:
    """Return a sha256 that changes when a cell has to be run again.

    Files that the recipe names count by their size and time, a strategy's file by its content.
    Whatever else a strategy imports is not looked at.
    """
    plain = recipe.model_dump(exclude={"name", "compare", "federation"}, mode="json")
    kept = Recipe.model_validate(plain)
    parts = [str(FORMAT), kept.model_dump_json(), code_digest(), *_stamps(recipe)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
        place, _, _ = name.rpartition(":")
        if place.endswith(".py"):
            yield _content(Path(place))
    options = [o for given in (strategy.options, *strategy.around.values()) for o in given.values()]
    texts = [option for option in options if isinstance(option, str)]
    for named in (recipe.data.source, recipe.backbone.weights, recipe.backbone.name, *texts):
        yield _stamp(named)


@lru_cache(maxsize=64)
def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


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
