"""The head that a site uses after a run, as a module of its own in the site's state folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree

from fedtl import __version__
from fedtl.backbone import BackboneCard
from fedtl.modules import Module, load_module, save_module
from fedtl.report.words import percent
from fedtl.types import Arrays, Finding, Personal

FOLDER = "personal"
"""In a site's state folder."""
MOST_RUNS = 8
"""Runs whose heads a site keeps."""


def keeper(
    folder: Path, card: BackboneCard, classes: tuple[str, ...], held_out: int
) -> Callable[[str, int, Arrays, Personal], None]:
    """Return what keeps a site's head of a run, the last round's in place of the one before.

    Parameters
    ----------
    folder : Path
        The site's state folder.
    held_out : int
        Held-out examples.
    """

    def keep(run: str, round_: int, head: Arrays, told: Personal) -> None:
        # a run's name comes from outside, so it names no path
        place = folder / FOLDER / hashlib.sha256(run.encode()).hexdigest()[:16]
        shares = {
            "alone": told.right_alone / max(held_out, 1),
            "global": told.right_global / max(held_out, 1),
            "used": told.right_used / max(held_out, 1),
        }
        provenance = {
            "run": run,
            "round": str(round_),
            "fedtl": __version__,
            "head": told.choice,
            **{f"accuracy-{name}": percent(share) for name, share in shares.items()},
            **{name: str(value) for name, value in asdict(told).items() if name != "choice"},
        }
        save_module(place, Module(head, card, classes, provenance))
        for old in _latest(folder)[MOST_RUNS:]:
            rmtree(old, ignore_errors=True)

    return keep


def _latest(folder: Path) -> list[Path]:
    """Return the folders of heads, the latest first."""
    kept = [path.parent for path in (folder / FOLDER).glob("*/module.json")]
    return sorted(kept, key=lambda place: (place / "module.json").stat().st_mtime, reverse=True)


def personal_findings(folder: Path) -> Iterator[Finding]:
    """Yield what a site's own head of the latest run is; nothing if there was none."""
    for place in _latest(folder)[:1]:
        told = load_module(place).provenance
        yield Finding(
            "own head",
            "ok",
            f"after round {told['round']} of '{told['run']}' this site uses the head "
            f"'{told['head']}': {told['accuracy-used']} of the held-out examples; trained alone "
            f"{told['accuracy-alone']}, global {told['accuracy-global']}; "
            f"fedtl predict '{place}' IMAGE",
        )
