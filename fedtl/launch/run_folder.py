"""The folder of a run: its recipe first, then everything that is found out."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedtl.errors import CacheError, RecipeError
from fedtl.home import write_atomic
from fedtl.recipe import Recipe, load_recipe

RECIPE, CHECKPOINT = "recipe.toml", "checkpoint"


def new_folder(recipe: Recipe, base: Path = Path("runs")) -> Path:
    """Return a run folder that does not exist yet: ``runs/<name>-<time>``."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, more = base / f"{recipe.name}-{stamp}", 1
    while folder.exists():
        more += 1
        folder = base / f"{recipe.name}-{stamp}-{more}"
    return folder


def recipe_of(folder: Path) -> Recipe:
    """Return the recipe of a run folder.

    Raises
    ------
    CacheError
        The folder is no run folder.
    """
    if not (folder / RECIPE).is_file():
        raise CacheError(
            f"'{folder}' is not a run folder: it has no recipe.toml.",
            next_step="Name a folder such as runs/digits-20260101-120000.",
        )
    return load_recipe(folder / RECIPE)


def claim(folder: Path, recipe: Recipe, *, again: str = "fedtl simulate") -> None:
    """Write the resolved recipe, or check that the folder belongs to it.

    Parameters
    ----------
    again : str
        The command that runs a recipe.
    """
    path = folder / RECIPE
    if path.is_file():
        if load_recipe(path) != recipe:
            raise RecipeError(
                f"'{folder}' belongs to another recipe.",
                next_step="Resume it without changing its recipe, or start in a new folder.",
            )
        return
    text = f"# fedtl recipe, resolved. Run it again: {again} {path}\n{recipe.to_toml()}"
    write_atomic(path, lambda file: file.write(text.encode()))
