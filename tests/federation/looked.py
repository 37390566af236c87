"""What is looked at after a fault: ledgers, history, head, and what lies in a folder."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtl.modules import load_module
from fedtl.privacy.ledger import Ledger
from fedtl.types import Arrays

LEDGER = "ledger.sqlite"


def head_of(run: Path) -> Arrays:
    """Return the head that a run ended with."""
    return load_module(run / "module").head


def charges(state: Path, run: str) -> dict[str, Counter[int]]:
    """Return by kind of message how often each round of a run was paid; the chain is checked."""
    with Ledger.open(state / LEDGER, read_only=True) as ledger:
        ledger.verify()
        found: dict[str, Counter[int]] = {}
        for entry in ledger.entries():
            if entry.kind == "charge" and entry.request.run == run:
                found.setdefault(entry.request.message, Counter())[entry.request.round] += 1
    return found


def n_entries(state: Path) -> int:
    """Return the number of a ledger's entries at this moment, without holding it."""
    path = state / LEDGER
    if not path.exists():
        return 0
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    connection.close()
    return int(count)


def name_of(run: Path) -> str:
    """Return by which name sites know a run."""
    return str(json.loads((run / "run.json").read_text())["run"])


def rounds_of(run: Path) -> list[int]:
    """Return the rounds of a run's report, in order."""
    report: Mapping[str, Any] = json.loads((run / "report.json").read_text())
    return [int(round_["round"]) for round_ in report["history"]]


def failures_of(run: Path) -> list[dict[str, str]]:
    """Return who failed and how, round by round."""
    report: Mapping[str, Any] = json.loads((run / "report.json").read_text())
    return [dict(round_["failures"]) for round_ in report["history"]]


def left_behind(folder: Path) -> list[str]:
    """Return the sockets, locks and files of process ids in a folder: none once all is stopped."""
    found = (path for path in folder.rglob("*") if path.is_socket() or path.name == ".lock")
    return sorted(str(path) for path in (*found, *folder.rglob("*.pid")))
