"""The benchmarks over a real SuperLink measure what they say, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "simulations" / "benchmarks"
SCRIPTS = ("own_wire.py", "own_agent.py", "own_superlink.py", "serve_agents.py")


def python(*arguments: str | Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Return the names of processes that still work in a folder after some seconds."""
    until = time.monotonic() + 10
    while True:
        found = [
            process.info["name"]
            for process in psutil.process_iter(["name", "environ"])
            if (process.info["environ"] or {}).get("TMPDIR") == str(folder)
        ]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed(script: str, folder: Path) -> None:
    done = python(BENCHMARKS / script, "--help", folder=folder)
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    assert "usage:" in said


def test_a_quick_run_measures_rounds_agent_and_server(folder: Path) -> None:
    run = (BENCHMARKS / "run.py", "--quick", "--only", "wire", "--out", folder / "out")
    started = python(*run, folder=folder)
    try:
        said, errors = started.communicate(timeout=900)
    finally:
        started.kill()
    assert started.returncode == 0, errors
    assert "SuperLink" in said
    report = json.loads((folder / "out" / "benchmarks.json").read_text())
    wire, agent, fleet = report["runs"]
    assert wire["nodes"] == 2
    (ratio,), (idle,), (busy,) = (
        wire[key] for key in ("ratios", "nothing_seconds", "round_seconds")
    )
    assert ratio == pytest.approx(busy / idle)
    assert min(idle, busy) > wire["start_seconds"] > wire["flower_imports_seconds"] > 0
    assert 0 < wire["own_imports_seconds"] < wire["flower_imports_seconds"] / 4
    assert 0 < wire["agent_seconds"] < busy
    assert min(wire["round_cpu_seconds"], wire["nothing_cpu_seconds"]) > 0.2  # a Python with Flower
    assert (agent["rows"], agent["steps"]) == (600, 600 // agent["batch"])
    assert 0 < agent["seconds_per_answer"] <= agent["slowest_seconds"]
    assert fleet["nodes"] == 2
    assert 0 < fleet["seconds_per_round"] <= fleet["slowest_seconds"]
    assert 0.05 < fleet["superlink_idle_gb"] <= fleet["superlink_peak_gb"] < 2
    assert 0.05 < fleet["server_app_peak_gb"] < 2
    assert [line["against"] for line in report["lines"]] == [
        "a phase of Flower's with nothing to do",
        "a fixed limit",
        "2 nodes, by node",
        "a fixed limit",
    ]
    assert left_behind(folder) == []


def test_stopping_a_benchmark_stops_its_superlink(folder: Path) -> None:
    started = python(BENCHMARKS / "own_superlink.py", "--nodes", "2", folder=folder)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if list(folder.glob("fedtl-*/fedtl")):  # the app is written when SuperLink is up
                break
            time.sleep(0.2)
        assert left_behind(folder) != []
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 128 + signal.SIGTERM
    assert left_behind(folder) == []
    assert list(folder.glob("fedtl-*")) == []
