"""A site that takes part: real agent and SuperNode, and the real server of a coordinator."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import Message, RecordDict
from invited import certificate
from invited import invite as write_invitation
from machines import eventually, free_port
from pictures import small_site

from fedtl.agent.agent_pb2 import State
from fedtl.agent.client import AgentClient
from fedtl.cli import main
from fedtl.errors import ConfigError
from fedtl.launch import services
from fedtl.launch.coordinator.enrol import invite
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.up import up as server_up
from fedtl.launch.flower_processes import program
from fedtl.launch.logs import last_lines
from fedtl.launch.site_services import AGENT, SUPERNODE, up
from fedtl.launch.site_state import connection_in, site_state
from fedtl.site.config import read_site
from fedtl.site.node_key import NODE_KEY, NODE_PUBLIC, make_node_key
from fedtl.transport._identity import ensure_identity
from fedtl.wire.messages import DESCRIBE

ensure_identity()


@dataclass
class Trial:
    """A coordinator whose server is up, and a site that has joined; its folder has a blank."""

    coordinator: Path
    state: Path

    def status(self, capsys: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["site", "status", str(self.state), "--json"]) == code
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    def pid(self, name: str) -> int:
        return {s.name: s.pid for s in services.status(self.state)}.get(name, 0)

    def agent(self) -> State | None:
        return site_state(read_site(self.state)).agent

    def connection(self) -> tuple[str, str]:
        found = site_state(read_site(self.state)).connection
        return found.state, found.what


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="fedtl") as above:
        place = Path(above)
        coordinator, state = place / "coordinator", small_site(place).rename(place / "a site")
        make_coordinator(coordinator, address=f"localhost:{free_port()}", name="trial")
        try:
            server_up(coordinator)
            path = place / "north.invite"
            invite(coordinator, "north", key=state / NODE_PUBLIC, out=path)
            assert main(["site", "join", str(state), str(path), "--yes"]) == 0
            yield Trial(coordinator, state)
        finally:
            services.stop(state)
            services.stop(coordinator)


@pytest.fixture
def running(trial: Trial) -> Trial:
    if not services.status(trial.state):
        up(trial.state)
    return trial


def test_a_site_is_up_with_one_command_and_connected(
    trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "up", str(trial.state)]) == 0
    assert "'north' is up" in capsys.readouterr().out
    assert eventually(lambda: trial.connection()[0] == "ok")
    assert eventually(lambda: (told := trial.agent()) and told.state == "ready")
    told = trial.status(capsys)
    assert told["connected"] is True
    assert {s["name"]: s["state"] for s in told["services"]} == {
        AGENT: "running",
        SUPERNODE: "running",
    }
    assert main(["site", "status", str(trial.state)]) == 0
    said = capsys.readouterr().out
    assert "ready, with the backbone tf_efficientnet_lite0" in said
    assert "localhost:" in said
    assert ": connected" in said
    assert "has spent epsilon 0.00 of 8" in said  # the budget that is left
    assert main(["server", "sites", str(trial.coordinator)]) == 0
    assert "online" in capsys.readouterr().out


def test_a_second_start_is_refused(running: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    pid = running.pid(AGENT)
    assert main(["site", "up", str(running.state)]) == 2
    assert "running already" in capsys.readouterr().err
    assert running.pid(AGENT) == pid


def test_a_killed_agent_comes_back_and_is_ready_again(
    running: Trial,
) -> None:
    before = running.pid(AGENT)
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: running.pid(AGENT) not in (0, before))
    assert eventually(lambda: (told := running.agent()) and told.state == "ready")


def test_a_killed_supernode_comes_back(running: Trial) -> None:
    """SuperLink lets it in again when it has missed its heartbeats, after up to a minute."""
    before = running.pid(SUPERNODE)
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: running.pid(SUPERNODE) not in (0, before))


def test_every_answer_is_a_line_in_the_log_that_says_nothing_about_data(
    running: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = AgentClient(running.state / "agent.sock")
    for kind in (DESCRIBE, "train"):
        agent.ask(Message(RecordDict(), 1, kind), 7, timeout=60)
    log = services.log_file(running.state, AGENT)
    assert eventually(lambda: sum('"type"' in line for line in last_lines(log, 9)) >= 2)
    lines = [json.loads(line) for line in last_lines(log, 9) if line.startswith("{")]
    assert [(one["type"], one["run"], one["code"]) for one in lines[-2:]] == [
        (DESCRIBE, 7, ""),
        ("train", 7, "policy.coordinator"),
    ]
    assert lines[-1].keys() == {"time", "type", "run", "code", "seconds"}
    assert abs(lines[-1]["time"] - time.time()) < 60
    capsys.readouterr()
    assert main(["site", "log", str(running.state), "-n", "3"]) == 0
    assert '"type": "train"' in capsys.readouterr().out
    assert main(["site", "log", str(running.state), "nginx"]) == 2
    assert "There is no service 'nginx'" in capsys.readouterr().err


def test_the_ledger_of_the_site_is_shown(
    running: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "ledger", str(running.state), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_down_leaves_nothing_and_the_port_stays_the_same(
    running: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    port = (running.state / "supernode.port").read_text()
    folder = str(running.state.resolve())
    assert main(["site", "down", str(running.state)]) == 0
    assert "Stopped." in capsys.readouterr().out
    assert not (running.state / "agent.sock").exists()
    assert not (running.state / "services.sock").exists()
    left = [p.name() for p in psutil.process_iter() if marked(p, folder)]
    assert left == []
    told = running.status(capsys, code=1)
    assert told["agent"] is None
    assert told["connected"] is False
    assert main(["site", "down", str(running.state)]) == 0
    assert "not running" in capsys.readouterr().out
    up(running.state)
    assert (running.state / "supernode.port").read_text() == port


def marked(process: psutil.Process, folder: str) -> bool:
    try:
        return bool(process.environ().get(services.MARK) == folder)
    except (psutil.Error, OSError):
        return False


def test_in_the_foreground_sigterm_stops_everything(trial: Trial) -> None:
    services.stop(trial.state)
    command = [sys.executable, "-m", "fedtl", "site", "up", str(trial.state), "--foreground"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: trial.pid(AGENT) and trial.pid(SUPERNODE))
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        services.stop(trial.state)
    assert not (trial.state / "agent.sock").exists()


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    change = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
    return subprocess.run([*change, *command], capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_the_supernode_runs_as_another_user_who_can_read_nothing(trial: Trial) -> None:
    # by way of env: what setpriv itself starts is still started with root's powers
    if as_nobody("env", program("flower-supernode"), "--version").returncode:
        pytest.skip("another user cannot execute this Python, which lies in a private folder")
    services.stop(trial.state)
    trial.state.parent.chmod(0o711)  # he has to walk there
    file, before = trial.state / "site.toml", (trial.state / "site.toml").read_text()
    file.write_text(before.replace('supernode_user = ""', 'supernode_user = "nobody"'))
    try:
        up(trial.state)
        assert eventually(lambda: trial.connection()[0] == "ok", 90)
        node = psutil.Process(trial.pid(SUPERNODE))
        users = {p.uids().real for p in (node, *node.children(recursive=True))}
        assert users == {pwd.getpwnam("nobody").pw_uid}
        seen = as_nobody("find", str(trial.state), "-type", "f", "-readable")
        assert "Permission denied" in seen.stderr  # the folder cannot even be listed
        assert seen.stdout == ""
        asks = (trial.state / "agent.sock").stat()
        assert (asks.st_gid, stat.S_IMODE(asks.st_mode)) == (node.gids().real, 0o660)
        assert {p.name for p in (trial.state / "supernode").iterdir()} == {
            "node.key",
            "coordinator.pem",
        }
    finally:
        services.stop(trial.state)
        file.write_text(before)


@pytest.mark.parametrize(("user", "said"), [("nobody-at-all", "no user of this machine")])
def test_a_user_who_is_not_there_is_named(trial: Trial, user: str, said: str) -> None:
    services.stop(trial.state)
    file, before = trial.state / "site.toml", (trial.state / "site.toml").read_text()
    file.write_text(before.replace('supernode_user = ""', f'supernode_user = "{user}"'))
    try:
        with pytest.raises(ConfigError, match=said):
            up(trial.state)
    finally:
        file.write_text(before)


def test_a_key_that_the_server_does_not_know_is_named(
    trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    services.stop(trial.state)
    kept = {name: (trial.state / name).read_bytes() for name in (NODE_KEY, NODE_PUBLIC)}
    (trial.state / NODE_KEY).unlink()
    make_node_key(trial.state)
    try:
        up(trial.state)
        assert eventually(lambda: trial.connection()[0] == "broken")
        assert "does not know its key" in trial.connection()[1]
        assert trial.status(capsys, code=1)["connected"] is False
    finally:
        services.stop(trial.state)
        for name, body in kept.items():
            (trial.state / name).write_bytes(body)


def test_a_server_with_another_certificate_is_named(trial: Trial) -> None:
    services.stop(trial.state)
    kept = (trial.state / "coordinator.pem").read_bytes()
    (trial.state / "coordinator.pem").write_text(certificate())
    try:
        up(trial.state)
        assert eventually(lambda: "certificate is not one" in trial.connection()[1])
    finally:
        services.stop(trial.state)
        (trial.state / "coordinator.pem").write_bytes(kept)


def test_a_site_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    state = small_site(tmp_path)
    with pytest.raises(ConfigError, match="has not joined") as error:
        up(state)
    assert error.value.code == "join.missing"
    assert "fedtl site join" in error.value.next_step
    assert main(["site", "join", str(state), str(write_invitation(tmp_path)), "--yes"]) == 0
    (state / NODE_KEY).unlink()
    with pytest.raises(ConfigError, match=r"key '.*' of this site cannot be found"):
        up(state)


def test_the_server_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fedtl") as above,
        socket.create_server(("127.0.0.1", 0)) as proxy,
    ):
        state = small_site(Path(above))
        path = write_invitation(Path(above), address="federation.invalid:9443")
        assert main(["site", "join", str(state), str(path), "--yes"]) == 0
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        proxy.settimeout(60)
        try:
            up(state)
            with proxy.accept()[0] as asked:
                assert asked.recv(1000).startswith(b"CONNECT federation.invalid:9443 HTTP/1.")
        finally:
            services.stop(state)


SAID = {
    "connected": ("SuperNode ID: 7", "ok"),
    "cut": ("SuperNode ID: 7|Connection attempt failed, retrying", "note"),
    "back": ("Connection attempt failed|Connection successful after 3 s", "ok"),
    "restarted": ("SuperNode ID: 7|Starting Flower SuperNode", "note"),
    "fails again and again": (
        "Failed to initialize the connection|CERTIFICATE_VERIFY_FAILED|Starting Flower SuperNode",
        "broken",
    ),
    "nothing": ("", "note"),
}


@pytest.mark.parametrize("what", SAID)
def test_the_log_tells_how_the_connection_is(what: str) -> None:
    lines, state = SAID[what]
    assert connection_in(lines.split("|")).state == state
