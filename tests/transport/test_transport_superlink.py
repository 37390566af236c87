"""Secure aggregation on Flower's deployment runtime: real SuperLink, real SuperNodes, on loopback.

Every message is answered by a fresh process there. Two of the sites have an agent each, a process
of its own that holds data and secrets; the third one's memory goes through Flower's own state.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedtl.agent.client import AgentClient
from fedtl.launch.simulate import simulate
from fedtl.recipe import load_recipe

ROOT = Path(__file__).parents[2]
HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
SITES, AGENTS = 3, 2
RECIPE = """
name = "linked"

[data]
limit = 160
[partition]
sites = 3
[backbone]
image_size = 32
[train]
rounds = 1
local_steps = 1
[privacy]
model = "distributed"
metrics = "off"
[transport]
secure = true
[compare]
without_privacy = false
local_only = false
"""


def free_ports(n: int) -> list[int]:
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Start a SuperLink and three SuperNodes; return the app's folder and the environment."""
    app = tmp_path / "app"
    for name in ("server", "client"):
        shutil.copytree(ROOT / name, app / name)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, app / name)
    link, *ports = free_ports(1 + SITES)
    home = tmp_path / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    started = []

    def start(*command: str) -> None:
        log = (tmp_path / f"{len(started)}.log").open("wb")
        started.append(
            subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=app, start_new_session=True
            )
        )
        log.close()

    try:
        insecure = ("--insecure", "--disable-runtime-dependency-installation")
        start("flower-superlink", *insecure, "--port", str(link), "--database", str(app / "db"))
        until = time.monotonic() + 60
        while not answers(link) and time.monotonic() < until:
            time.sleep(0.2)
        (tmp_path / "linked.toml").write_text(RECIPE)
        for at in range(AGENTS):
            start(sys.executable, str(HERE / "serve_site.py"), str(tmp_path), str(at))
        until = time.monotonic() + 60
        sockets = [tmp_path / f"{at}.sock" for at in range(AGENTS)]
        while not all(s.exists() for s in sockets) and time.monotonic() < until:
            time.sleep(0.2)
        for at, port in enumerate(ports):
            config = f"partition-id={at} num-partitions={SITES}"
            if at < AGENTS:
                config = f'agent="{sockets[at]}"'
            where = ("--superlink", f"127.0.0.1:{link}", "--port", str(port))
            start("flower-supernode", "--insecure", *where, "--node-config", config)
        yield app, environment
    finally:
        stop(started)


def stop(started: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(started):
        os.killpg(process.pid, signal.SIGTERM)
    for process in started:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_head_is_that_of_a_simulation(
    linked: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    app, environment = linked
    asked = f"recipe='{tmp_path / 'linked.toml'}' out='{tmp_path / 'runs'}'"
    done = subprocess.run(
        ["flwr", "run", ".", "here", "--run-config", asked, "--stream"],
        cwd=app,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    heads = list(tmp_path.glob("runs/*/module/head.safetensors"))
    assert len(heads) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    simulated = simulate(load_recipe(tmp_path / "linked.toml"), tmp_path / "simulated", html=False)
    got, expected = load_file(heads[0])["weight"], simulated.head["weight"]
    np.testing.assert_allclose(got, expected, atol=1e-6)  # type: ignore[arg-type]
    assert np.abs(got).max() > 0.01
    told = [AgentClient(tmp_path / f"{at}.sock").status() for at in range(AGENTS)]
    assert [(s.answered, s.refused) for s in told] == [(6, 0)] * AGENTS  # description, five stages
