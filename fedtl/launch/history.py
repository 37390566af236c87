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

from fedtl.home import write_atomic
from fedtl.rounds import RoundRecord
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
    """Read the first ``rounds`` rounds."""
    path = folder / "history.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [_entry(json.loads(line)) for line in lines[:rounds]]


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


def releases_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return each site's private releases after the given rounds."""
    releases: dict[str, int] = {}
    for entry in entries:
        releases.update(entry.record.releases)
    return releases


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
