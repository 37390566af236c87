"""A run's history on disk: one JSON line per round, so that a stop loses at most one."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtl.errors import CacheError
from fedtl.home import write_atomic
from fedtl.rounds import RoundRecord
from fedtl.rounds.check import LOST
from fedtl.types import Evaluation, Personal


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
        name: {
            **_shallow(e),
            "confusion": None if e.confusion is None else e.confusion.tolist(),
            "personal": None if e.personal is None else asdict(e.personal),
        }
        for name, e in entry.record.evaluations.items()
    }
    record = {k: v for k, v in _shallow(entry.record).items() if k != "evaluations"}
    return {**record, "evaluations": evaluations, "down": entry.down, "up": entry.up}


def _shallow(value: RoundRecord | Evaluation) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _entry(plain: dict[str, Any]) -> Entry:
    down, up = plain.pop("down"), plain.pop("up")
    plain["cohort"] = tuple(plain["cohort"])
    plain["evaluations"] = {n: _evaluation(e) for n, e in plain["evaluations"].items()}
    return Entry(RoundRecord(**plain), down, up)


def _evaluation(plain: dict[str, Any]) -> Evaluation:
    cells, personal = plain["confusion"], plain.get("personal")
    known = {
        "confusion": None if cells is None else np.asarray(cells, float),
        "personal": None if personal is None else Personal(**personal),
    }
    return Evaluation(**plain | known)


class Tally:
    """Counts every site's private releases by mechanism, round after round.

    A reply that got lost or could not be used was released all the same.

    Parameters
    ----------
    per_round : mapping of str to int
        Releases of a site in one round by mechanism; empty without privacy.
    before : mapping of str to mapping of str to int, optional
        Site to mechanism to releases before the first round.

    Attributes
    ----------
    counts : dict of str to dict of str to int
        Site to mechanism to releases so far.
    """

    def __init__(
        self, per_round: Mapping[str, int], before: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self._per_round = per_round
        self.counts = {site: dict(counts) for site, counts in (before or {}).items()}

    def add(self, record: RoundRecord) -> None:
        """Count one more round."""
        asked = {site: record.failures.get(site, "") for site in record.cohort}
        self._add(record.mechanism, asked, record.releases)
        told = {site: e.releases for site, e in record.evaluations.items()}
        self._add("metrics", record.unevaluated, told)

    def _add(self, mechanism: str, failures: Mapping[str, str], told: Mapping[str, int]) -> None:
        made = self._per_round.get(mechanism, 0)
        for site in [s for s, code in failures.items() if made and code in LOST]:
            own = self.counts.setdefault(site, {})
            own[mechanism] = own.get(mechanism, 0) + made
        for site, count in told.items():
            if count:
                self.counts.setdefault(site, {})[mechanism] = count

    @classmethod
    def of(
        cls,
        entries: Sequence[Entry],
        per_round: Mapping[str, int],
        before: Mapping[str, Mapping[str, int]] | None = None,
    ) -> Tally:
        """Count some rounds."""
        tally = cls(per_round, before)
        for entry in entries:
            tally.add(entry.record)
        return tally


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
                    f"{result.n:.10g}" if result and result.measured else "",
                    _decimal(result.accuracy) if result else "",
                    _decimal(result.loss) if result else "",
                    record.releases.get(site, ""),
                    record.failures.get(site, ""),
                    entry.down.get(site, 0),
                    entry.up.get(site, 0),
                ]
            )
    write_atomic(folder / "history.csv", lambda file: file.write(out.getvalue().encode()))


def _decimal(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.6f}"
