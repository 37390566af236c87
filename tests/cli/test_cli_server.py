"""What a coordinator sees: real commands, their exit codes, and where they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import free_port

from fedtl.launch import services
from fedtl.site.node_key import make_node_key

FEDTL = str(Path(sys.executable).parent / "fedtl")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a folder to work in, on a short path; a server in it is stopped in the end."""
    with tempfile.TemporaryDirectory(prefix="fedtl") as folder:
        try:
            yield Path(folder)
        finally:
            services.stop(Path(folder) / "coordinator")


def run(place: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [FEDTL, "server", *arguments], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def test_a_coordinator_is_set_up_asked_and_stopped_by_its_commands(place: Path) -> None:
    said, _ = run(place, "init", "--address", f"localhost:{free_port()}")
    assert "Next: fedtl server up 'coordinator'" in said
    spoken = said.split("compare:\n  ")[1].split("\n")[0]
    assert len(spoken.replace(" ", "")) == 64
    _, problem = run(place, "sites", code=2)
    assert "is not up. Start it: fedtl server up" in problem
    said, _ = run(place, "status", code=1)
    assert "stopped" in said
    said, _ = run(place, "up")
    assert spoken in said
    _, problem = run(place, "up", code=2)
    assert "running already" in problem
    key = make_node_key(place)
    said, _ = run(place, "invite", "coordinator", "north", "--key", str(key))
    assert spoken in said
    assert "SHA256:" in said
    assert (place / "north.invite").is_file()
    said, _ = run(place, "sites")
    assert said.startswith("north")
    assert "never connected" in said
    told = json.loads(run(place, "sites", "--json")[0])
    assert [(site["site"], site["online"]) for site in told] == [("north", False)]
    told = json.loads(run(place, "status", "--json")[0])
    assert told["up"]
    assert [s["state"] for s in told["services"]] == ["running"] * 2
    assert "Uvicorn running on https://127.0.0.1" in run(place, "log", "-n", "100")[0]
    assert "holds until" in run(place, "renew")[0]
    run(place, "remove", "coordinator", "north")
    assert "No site is enrolled" in run(place, "sites")[0]
    assert run(place, "down")[0] == "Stopped.\n"
    assert run(place, "down")[0] == "It was not running.\n"
    assert services._processes((place / "coordinator").resolve()) == []


def test_in_the_foreground_the_server_stops_with_sigterm(place: Path) -> None:
    folder = (place / "coordinator").resolve()
    if not folder.exists():
        run(place, "init", "--address", f"localhost:{free_port()}")
    with (place / "out").open("wb") as log:
        process = subprocess.Popen(
            [FEDTL, "server", "up", "--foreground"],
            cwd=place,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 30
        while len(services.status(folder)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        assert len(services.status(folder)) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert services._processes(folder) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "x", "--address", "nowhere"), "is not host:port"),
        (("init", "x", "--address", "h:1", "--key", "k"), "belong together"),
        (("init", "x", "--address", "h:1", "--name", "../x"), "cannot be used"),
        (("up", "nowhere"), "fedtl server init FOLDER"),
        (("down", "nowhere"), "fedtl server init FOLDER"),
        (("log", "nowhere", "ngixn"), "Did you mean 'nginx'?"),
        (("invite", "nowhere", "north", "--key", "k"), "fedtl server init FOLDER"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_cure(
    place: Path, arguments: tuple[str, ...], words: str
) -> None:
    out, problem = run(place, *arguments, code=2)
    assert out == ""
    assert words in problem
    assert not (place / "x").exists()
