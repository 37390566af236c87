"""``fedtl site agent`` serves until it is told to stop, and `status` looks in from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import small_site

from fedtl.cli import main


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return small_site(tmp_path)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def serve(state: Path, started: list[subprocess.Popen[str]], *flags: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fedtl", "site", "agent", str(state), *flags],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    until = time.monotonic() + 60
    while not (state / "agent.sock").exists() and time.monotonic() < until:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    return process


def status(state: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what the agent says, by the command that people use."""
    capsys.readouterr()
    main(["site", "status", str(state), "--json"])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)["agent"]
    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_serves_and_leaves_cleanly(
    number: int,
    state: Path,
    started: list[subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = serve(state, started)
    until = time.monotonic() + 60
    while (told := status(state, capsys))["state"] != "ready" and time.monotonic() < until:
        time.sleep(0.2)
    assert (told["site"], told["busy"], told["waiting"]) == ("north", "", 0)
    assert (told["state"], told["architecture"]) == ("ready", "tf_efficientnet_lite0")
    assert main(["site", "status", str(state)]) == 1  # no SuperNode is there
    said = capsys.readouterr().out
    assert "idle; 0 answered and 0 refused" in said
    assert "ready, with the backbone tf_efficientnet_lite0" in said
    process.send_signal(number)
    assert process.wait(20) == 0
    assert process.stderr is not None
    said = process.stderr.read()
    assert "north: serving at" in said
    assert "Ready: 17 training examples" in said
    assert "Stopped; the socket is gone" in said
    assert not (state / "agent.sock").exists()


def test_a_second_agent_is_refused_and_the_first_goes_on(
    state: Path, started: list[subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(state, started)
    assert main(["site", "agent", str(state), "-q"]) == 2
    assert "An agent of 'north' answers at" in capsys.readouterr().err
    assert status(state, capsys)["site"] == "north"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["agent", "--mode", "666"], "--mode is '666'"),
        (["agent", "--mode", "rw"], "--mode is 'rw'"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: list[str], said: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", arguments[0], str(state), *arguments[1:]]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_a_folder_without_a_site_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "agent", str(tmp_path / "nowhere")]) == 2
    assert "There is no state folder" in capsys.readouterr().err
