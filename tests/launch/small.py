"""Small runs on real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedtl.launch.simulate import Finished, simulate
from fedtl.recipe import Recipe, load_recipe

SMALL: dict[str, Any] = {
    "data.limit": 160,
    "backbone.image_size": 32,
    "partition.sites": 3,
    "train.rounds": 2,
    "train.local_steps": 2,
    "compare.local_only": False,
    "compare.without_privacy": False,
}


def recipe(**changes: Any) -> Recipe:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe(None, {**SMALL, **named})


def run(folder: Path, chosen: Recipe | None = None, **options: Any) -> Finished:
    return simulate(chosen or recipe(), folder, html=False, **options)
