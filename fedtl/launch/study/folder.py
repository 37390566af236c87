"""The folder of a study: which plan it belongs to, and one file for every finished cell."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedtl import __version__
from fedtl.errors import CacheError
from fedtl.home import write_atomic
from fedtl.launch.study.digest import FORMAT
from fedtl.recipe.study import Cell, StudyPlan
from fedtl.report.study_result import CellResult, CellRound

STUDY, CELLS, LOGS = "study.json", "cells", "logs"


def usual_folder(plan: StudyPlan) -> Path:
    """Return where a study lies that is given no other place: the same for the same plan."""
    return Path("runs") / f"study-{plan.name}"


def check_folder(folder: Path, plan: StudyPlan) -> bool:
    """Say whether a folder is that of an earlier run of the plan; it may also be new or empty.

    Raises
    ------
    CacheError
        It holds something else: another plan, a study of another version, or other files.
    """
    path = folder / STUDY
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(_foreign(folder))):
            raise CacheError(
                f"'{folder}' is not empty, and no study.",
                next_step="Name a new folder with --out.",
                code="study.foreign",
            )
        return False
    found = _read(path)
    if found.get("format") != FORMAT:
        raise CacheError(
            f"The study in '{folder}' has the format {found.get('format', 'unknown')}; this "
            f"version of fedtl reads and writes format {FORMAT}.",
            next_step="Name a new folder with --out, or delete the old one to run it again.",
            code="study.version",
        )
    if found.get("name") != plan.name:
        raise CacheError(
            f"'{folder}' holds the study '{found.get('name')}', and the plan is '{plan.name}'.",
            next_step="Name another folder with --out, or give the plan that name.",
            code="study.other",
        )
    return True


def _foreign(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != ".lock"]


def claim_study(folder: Path, plan: StudyPlan) -> None:
    """Write down which plan a folder belongs to."""
    marked = {"format": FORMAT, "name": plan.name, "fedtl": __version__}
    _write(folder / STUDY, marked)


def cell_file(folder: Path, cell: Cell) -> Path:
    """Return the file of a cell's result; its name can be read, and depends on labels and seed."""
    words = "__".join(re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-") for _, label in cell.labels)
    told = hashlib.sha256(json.dumps([cell.labels, cell.seed]).encode()).hexdigest()[:8]
    return folder / CELLS / f"{words[:100]}__seed-{cell.seed}__{told}.json"


def save_cell(folder: Path, cell: Cell, digest: str, rounds: Sequence[CellRound]) -> CellResult:
    """Write the result of a cell, and return it."""
    kept = {
        "format": FORMAT,
        "digest": digest,
        "fedtl": __version__,
        "labels": dict(cell.labels),
        "seed": cell.seed,
        "recipe": cell.recipe.to_toml(),
        "rounds": [asdict(round_) for round_ in rounds],
    }
    _write(cell_file(folder, cell), kept)
    return CellResult(dict(cell.labels), cell.seed, tuple(rounds))


def load_cell(folder: Path, cell: Cell, digest: str) -> CellResult | None:
    """Return what is kept of a cell; None where there is nothing, or it is of other conditions."""
    try:
        kept = json.loads(cell_file(folder, cell).read_text("utf-8"))
        if kept["digest"] != digest:
            return None
        rounds = tuple(CellRound(**round_) for round_ in kept["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is run again
    return CellResult(dict(cell.labels), cell.seed, rounds)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise CacheError(
            f"'{path}' is damaged.",
            next_step="Name a new folder with --out, or delete this one to run the study again.",
            code="study.damaged",
        )
    return found


def _write(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))
