"""A run's history on disk: one JSON line per round, so that a stop loses at most one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtl.errors import CacheError
from fedtl.home import write_atomic
from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds import RoundRecord
from fedtl.rounds.check import LOST
from fedtl.types import Evaluation


@dataclass(frozen=True, slots=True)
class Entry:
    """One round and its traffic: bytes of arrays to and from each site."""

    record: RoundRecord
    down: Mapping[str, int]
    up: Mapping[str, int]


def save_history(folder: Path, entries: Sequence[Entry]) -> None:
    """Write all rounds so far, atomically."""
    text = "".join(json.dumps(_plain(entry)) + "\n" for entry in entries)
    write_atomic(folder / "history.jsonl", lambda file: file.write(text.encode()))


def load_history(folder: Path, rounds: int) -> list[Entry]:
    """Read the first ``rounds`` rounds.

    Raises
    ------
    CacheError
        It is damaged or misses a round: without it a resumed run would forget what it has spent.
    """
    path = folder / "history.jsonl"
    try:
        lines = path.read_text("utf-8").splitlines()[:rounds] if rounds else []
        entries = [_entry(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if [entry.record.round for entry in entries] != list(range(1, rounds + 1)):
        raise _damaged(path)
    return entries


def _damaged(path: Path) -> CacheError:
    return CacheError(
        f"The history '{path}' is damaged or missing.",
        next_step="Delete the folder it lies in to start the run from the first round.",
    )


def _plain(entry: Entry) -> dict[str, Any]:
    evaluations = {
        name: {"n": e.n, "loss": e.loss, "confusion": e.confusion.tolist()}
        for name, e in entry.record.evaluations.items()
    }
    record = {k: v for k, v in _shallow(entry.record).items() if k != "evaluations"}
    return {**record, "evaluations": evaluations, "down": entry.down, "up": entry.up}


def _shallow(record: RoundRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in RoundRecord.__dataclass_fields__}


def _entry(plain: dict[str, Any]) -> Entry:
    down, up = plain.pop("down"), plain.pop("up")
    plain["cohort"] = tuple(plain["cohort"])
    plain["evaluations"] = {
        name: Evaluation(e["n"], e["loss"], np.asarray(e["confusion"], np.int64))
        for name, e in plain["evaluations"].items()
    }
    return Entry(RoundRecord(**plain), down, up)


def releases_of(entries: Sequence[Entry], *, per_round: int) -> dict[str, int]:
    """Return each site's private releases after the given rounds.

    A reply that got lost or could not be used was released all the same: ``per_round`` releases.
    """
    releases: dict[str, int] = {}
    for entry in entries:
        for site in entry.record.cohort:
            if entry.record.failures.get(site) in LOST:
                releases[site] = releases.get(site, 0) + per_round
        releases.update(entry.record.releases)
    return releases


def releases_per_round(plan: PrivacyPlan | None, rounds: int) -> int:
    """Return a site's private releases in one of ``rounds`` rounds."""
    return plan.releases // rounds if plan else 0


def write_csv(folder: Path, entries: Sequence[Entry]) -> None:
    """Write ``history.csv``: one row per round and site, for any spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["round", "site", "held_out", "accuracy", "loss", "releases", "failure", "down", "up"]
    )
    for entry in entries:
        record = entry.record
        for site in sorted({*record.cohort, *record.evaluations}):
            result = record.evaluations.get(site)
            writer.writerow(
                [
                    record.round,
                    site,
                    result.n if result else "",
                    f"{result.accuracy:.6f}" if result else "",
                    f"{result.loss:.6f}" if result else "",
                    record.releases.get(site, ""),
                    record.failures.get(site, ""),
                    entry.down.get(site, 0),
                    entry.up.get(site, 0),
                ]
            )
    write_atomic(folder / "history.csv", lambda file: file.write(out.getvalue().encode()))
