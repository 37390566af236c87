"""The benchmark of studies measures a study: every cell runs, and no feature is extracted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "simulations" / "benchmarks" / "own_study.py"


def own_study(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, SCRIPT, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_small_study_runs_all_its_cells_on_the_given_features(
    fresh_home: Path, tmp_path: Path
) -> None:
    sizes = ("--sites", "3", "--rows", "40", "--rounds", "2", "--seeds", "2")
    assert own_study("write", tmp_path, *sizes)["rows"] == 3 * (40 + 7)
    blocks = list((fresh_home / "features").glob("*/blocks/*"))
    found = own_study("run", tmp_path, "--jobs", "1")
    assert list((fresh_home / "features").glob("*/blocks/*")) == blocks
    assert found["failed"] == {}
    assert len(found["accuracy"]) == 5
    assert len(list((tmp_path / "study" / "cells").iterdir())) == 10
    assert found["seconds"] > sum(found["seconds_of_rounds"].values()) * 2 * 0.9
    assert min(found["accuracy"].values()) > 0.2  # of ten classes
    assert found["seconds_of_rounds"].keys() == found["accuracy"].keys()


def test_its_aim_is_in_the_table() -> None:
    code = "import comparisons; print(sorted(comparisons.COMPARISONS))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(done.stderr)
    assert "'study'" in done.stdout
