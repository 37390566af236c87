"""The benchmarks' own side: every script runs, does the peers' work, and is judged by its aims."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "simulations" / "benchmarks"
SCRIPTS = (
    *("own_heads.py", "own_extract.py", "own_scale.py"),
    *("own_study.py", "own_strategies.py", "run.py"),
)
HEAVY = re.compile(r"\|\s+(torch|flwr|ray|pfl|timm|matplotlib)$", re.MULTILINE)


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def figures(*arguments: str | Path) -> dict[str, Any]:
    done = python(*arguments)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def snippet(code: str, *arguments: str) -> str:
    """Run code beside the scripts, which import one another by name."""
    prelude = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); "
    done = python("-c", prelude + code, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sites of 60 rows in three clearly separate classes."""
    random = np.random.default_rng(3)
    y = random.integers(0, 3, (4, 60))
    x = np.eye(3, 16, dtype=np.float32)[y] * 3 + random.random((4, 60, 16), dtype=np.float32)
    path = tmp_path_factory.mktemp("benchmarks") / "features.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_without_heavy_imports(script: str) -> None:
    done = python("-X", "importtime", BENCHMARKS / script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert HEAVY.findall(done.stderr) == []


def test_both_grids_end_with_the_same_head_and_have_learned(features: Path) -> None:
    """A faster Grid that does other work would win every comparison."""
    found = [
        figures(BENCHMARKS / "own_heads.py", features, "--via", v) for v in ("local", "stacked")
    ]
    assert found[0]["loss"] == found[1]["loss"]
    assert found[0]["accuracy"] == found[1]["accuracy"] > 0.9
    for answer in found:
        assert answer["sites"] == 4
        assert answer["client_rounds_per_second"] == pytest.approx(40 / answer["seconds"], rel=1e-3)


def test_dp_sgd_makes_the_head_worse_and_is_refused_for_shuffled_batches(features: Path) -> None:
    full = (BENCHMARKS / "own_heads.py", features, "--sampling", "full")
    assert figures(*full, "--private")["loss"] > figures(*full)["loss"]
    done = python(BENCHMARKS / "own_heads.py", features, "--private")
    assert done.returncode == 2
    assert "--sampling poisson or full" in done.stderr


def test_memory_is_measured_in_a_process_that_did_not_write_the_features(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    written = figures(BENCHMARKS / "own_scale.py", "write", path, "--rows", "5000", "--width", "8")
    assert written["bytes"] == path.stat().st_size - 128 == 5000 * 8 * 4
    found = figures(BENCHMARKS / "own_scale.py", "memory", path, "--rounds", "2")
    assert (found["rows"], found["sites"], found["rounds"]) == (5000, 10, 2)
    assert 0.05 < found["peak_gb"] < 2  # Python with torch and Flower, in GB and not in KiB


def test_missing_features_name_the_script_that_writes_them(tmp_path: Path) -> None:
    files = ("--input", tmp_path / "x.npy", "--features", tmp_path / "y.npy")
    done = python(BENCHMARKS / "own_extract.py", *files)
    assert done.returncode == 2
    assert "peer_eager_extract.py" in done.stderr


def test_an_aim_is_met_by_the_median_and_from_the_right_side() -> None:
    code = (
        "from measure import Line; "
        "line = lambda aim, at_least, *v: Line('a', 'b', aim, at_least, v, 'x', '').met; "
        "print(line(3, True, 2.9, 3.1, 9.0), line(3, True, 1.0, 2.9, 9.0), "
        "line(1.5, False, 1.0, 1.4, 9.0), line(1.5, False, 1.0, 1.6, 1.7))"
    )
    assert snippet(code).split() == ["True", "False", "True", "False"]


def test_contenders_take_turns_in_both_orders_and_a_failure_is_quoted(tmp_path: Path) -> None:
    code = """
import json
from pathlib import Path
from measure import Bench, ratios
from fedtl.errors import FedtlError
said = []
bench = Bench(Path(sys.argv[1]), 2, Path(sys.executable), say=said.append)
count = iter(range(1, 9))
found = bench.alternate({name: lambda: {"seconds": next(count)} for name in "ab"})
print(json.dumps([said, found, ratios(found["a"], found["b"], "seconds")]))
try:
    bench.answer([sys.executable, "-c", "raise SystemExit('no such luck')"])
except FedtlError as error:
    print(error)
"""
    first, error = snippet(code, str(tmp_path)).splitlines()
    said, found, quotients = json.loads(first)
    assert [line.split(",")[0] for line in said] == ["a", "b", "b", "a"]
    assert found == {"a": [{"seconds": 1}, {"seconds": 4}], "b": [{"seconds": 2}, {"seconds": 3}]}
    assert quotients == [1 / 2, 4 / 3]
    assert "no such luck" in error


def test_a_quick_run_prints_a_table_and_writes_all_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = python(BENCHMARKS / "run.py", "--quick", "--only", "cohort", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "time of a" in done.stdout
    report = json.loads((out / "benchmarks.json").read_text())
    assert set(report) == {"quick", "machine", "lines", "runs"}
    assert report["quick"] is True
    assert report["machine"]["cores"] >= 1
    (line,) = report["lines"]
    assert line["aim"] == 1.5
    assert line["measured"] == line["values"][0] > 0
    assert line["met"] is (line["measured"] <= 1.5)
    assert [run["sites"] for run in report["runs"]] == [40, 80, 160]
    assert "| time of a round, 20 of 160 sites |" in (out / "benchmarks.md").read_text()
    assert (out / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "benchmarks.svg").read_bytes()


def test_an_unknown_comparison_lists_the_known_ones() -> None:
    done = python(BENCHMARKS / "run.py", "--only", "speed")
    assert done.returncode == 2
    assert "extraction" in done.stderr
    assert "heads" in done.stderr


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "scaffold", "feddyn"])
def test_rounds_of_a_strategy_are_timed(strategy: str) -> None:
    script = BENCHMARKS / "own_strategies.py"
    told = figures(script, "drift", strategy, "--sites", "3", "--rounds", "2")
    assert told["strategy"] == strategy
    assert 0 < told["seconds_per_round"] < 60


def test_statistics_are_timed_beside_their_product() -> None:
    script = BENCHMARKS / "own_strategies.py"
    told = figures(script, "statistics", "--sites", "2", "--rows", "40")
    assert min(told["seconds"], told["product_seconds"]) > 0
