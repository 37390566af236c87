"""The server stays up, remembers who is enrolled, runs an app, and goes without a trace."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from elsewhere import Federation
from machines import eventually, free_port

from fedtl.errors import ConfigError
from fedtl.launch import services
from fedtl.launch.coordinator.certificates import _make, expires, make_authority
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.coordinator.enrol import invite, remove
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.link import nodes, run_status, stop_run, submit
from fedtl.launch.coordinator.sites import enrolled
from fedtl.launch.coordinator.state import findings, server_state
from fedtl.launch.coordinator.up import renew, up
from fedtl.launch.services import log_file
from fedtl.site.node_key import make_node_key


def pid_of(federation: Federation, name: str) -> int:
    return next((s.pid for s in services.status(federation.folder) if s.name == name), 0)


def test_a_killed_superlink_comes_back_and_knows_its_sites(
    federation: Federation, tmp_path: Path
) -> None:
    key = make_node_key(tmp_path)
    invite(federation.folder, "survivor", key=key, out=tmp_path / "survivor.invite")
    before = {n.site: n.node_id for n in nodes(federation.folder).values()}
    with federation.supernode(key.with_suffix(".key"), tmp_path / "node.log") as process:
        assert eventually(lambda: federation.is_online("survivor"))
        killed = pid_of(federation, "superlink")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: pid_of(federation, "superlink") not in (0, killed))
        asked = [[200]]
        request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        port, ca = federation.port, federation.coordinator.ca
        assert eventually(lambda: federation.elsewhere.ask(port, ca, [request]) == asked)
        after = {n.site: n.node_id for n in nodes(federation.folder).values()}
        assert after == before
        assert (
            before["survivor"] == {s.name: s.node for s in enrolled(federation.folder)}["survivor"]
        )
        assert eventually(lambda: federation.is_online("survivor"))
        assert process.poll() is None  # the site did not have to do anything


def test_an_app_runs_with_the_coordinators_folder_and_nothing_is_installed(
    federation: Federation, app: Path
) -> None:
    text = "quotes \" ' and = % \\ \n survive"
    run = submit(federation.folder, app, {"text": text})
    assert eventually(lambda: run_status(federation.folder, run).startswith("finished"))
    log = log_file(federation.folder, "superlink")
    assert run_status(federation.folder, run) == "finished:completed", log.read_text()[-3000:]
    assert (federation.folder / "runs" / "said").read_text() == text


def test_arrays_of_many_pieces_pass_the_proxy_both_ways(
    federation: Federation, app: Path, tmp_path: Path
) -> None:
    key = make_node_key(tmp_path)
    invite(federation.folder, "large", key=key, out=tmp_path / "large.invite")
    with federation.supernode(key.with_suffix(".key"), tmp_path / "node.log"):
        assert eventually(lambda: federation.is_online("large"))
        run = submit(federation.folder, app, {"megabytes": 12})
        assert eventually(lambda: run_status(federation.folder, run).startswith("finished"), 120)
    said = (federation.folder / "runs" / "said").read_text()
    assert said.startswith("True"), (tmp_path / "node.log").read_text()[-3000:]


def test_a_run_can_be_stopped(federation: Federation, app: Path) -> None:
    run = submit(federation.folder, app, {"wait": 600})
    assert eventually(lambda: run_status(federation.folder, run) == "running")
    stop_run(federation.folder, run)
    assert eventually(lambda: run_status(federation.folder, run) == "finished:stopped")
    assert eventually(lambda: not serverapps(federation))


def serverapps(federation: Federation) -> list[psutil.Process]:
    return [p for p in services._processes(federation.folder) if "flwr-serverapp" in p.cmdline()]


def test_a_site_is_told_by_its_supernode_what_is_wrong_with_a_certificate(
    federation: Federation, tmp_path: Path
) -> None:
    key = make_node_key(tmp_path)
    invite(federation.folder, "careful", key=key, out=tmp_path / "careful.invite")
    folder, host = federation.folder, federation.coordinator.host
    make_authority_elsewhere(tmp_path)
    try:
        _make(folder, "server", (host,), -0.5)  # type: ignore[arg-type]
        assert server_state(federation.coordinator).days_left < 0
        os.kill(pid_of(federation, "nginx"), signal.SIGHUP)
        said = supernode_says(federation, key, tmp_path / "expired.log", federation.coordinator.ca)
        assert "certificate has expired" in said
        found = {f.name: f.state for f in findings(server_state(federation.coordinator))}
        assert found["certificate"] == "broken"
    finally:
        renew(folder)
    assert server_state(federation.coordinator).days_left == 396
    other = tmp_path / "tls" / "ca.crt"
    assert "certificate verify failed" in supernode_says(
        federation, key, tmp_path / "other.log", other
    )
    with federation.supernode(key.with_suffix(".key"), tmp_path / "node.log"):
        assert eventually(lambda: federation.is_online("careful"))  # with the renewed one


def make_authority_elsewhere(folder: Path) -> None:
    (folder / "tls").mkdir()
    make_authority(folder, "other")


def supernode_says(federation: Federation, key: Path, log: Path, ca: Path) -> str:
    with federation.supernode(key.with_suffix(".key"), log, ca=ca) as process:
        assert process.wait(90) != 0
    return log.read_text()


def test_a_removed_site_is_sent_away_and_its_key_stays_out(
    federation: Federation, tmp_path: Path
) -> None:
    key = make_node_key(tmp_path)
    out = tmp_path / "leaver.invite"
    invite(federation.folder, "leaver", key=key, out=out)
    with federation.supernode(key.with_suffix(".key"), tmp_path / "node.log") as process:
        assert eventually(lambda: federation.is_online("leaver"))
        remove(federation.folder, "leaver")
        assert "leaver" not in {n.site for n in nodes(federation.folder).values()}
        assert process.wait(60) is not None
    with pytest.raises(ConfigError) as caught:
        invite(federation.folder, "leaver", key=key, out=tmp_path / "again.invite")
    assert caught.value.code == "server.key-removed"


def running(folder: Path) -> list[str]:
    """Return the names of a folder's processes; nginx overwrites its environment."""
    found = [p.name() for p in services._processes(folder)]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "nginx" and process.cwd() == str(folder):
                found.append("nginx")
    return found


def test_up_and_down_leave_nothing_but_files(short: Path) -> None:
    folder = short / "c"
    make_coordinator(folder, address=f"localhost:{free_port()}", name="trial")
    try:
        up(folder)
        assert server_state(read_server(folder)).is_up
        assert len(running(folder)) >= 5  # supervisord, SuperLink, its helper, nginx, its workers
        with pytest.raises(ConfigError, match="running already"):
            up(folder)
        os.kill(int((folder / "services.pid").read_text()), signal.SIGKILL)
        assert eventually(lambda: running(folder) == [])
        up(folder)
    finally:
        assert services.stop(folder)
    assert running(folder) == []
    assert not [path for path in folder.rglob("*") if path.is_socket() or path.suffix == ".pid"]
    assert not server_state(read_server(folder)).is_up


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run without root already")
def test_a_server_needs_no_root(short: Path) -> None:
    folder = short / "c"
    make_coordinator(folder, address=f"localhost:{free_port()}", name="trial")
    # in a user namespace without a mapping, root's own files are a plain user's
    command = ("unshare", "-U", str(Path(sys.executable).parent / "fedtl"), "server", "up")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "user nobody" not in (folder / "nginx.conf").read_text()
    assert server_state(read_server(folder)).is_up


def test_a_port_in_use_is_told_with_nginxs_words(short: Path, federation: Federation) -> None:
    folder = short / "c"
    make_coordinator(folder, address=f"localhost:{federation.port}", name="second")
    with pytest.raises(ConfigError, match=r"'nginx'.*Address already in use"):
        up(folder)
    assert services._processes(folder) == []


def test_without_nginx_the_command_that_installs_it_is_told(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short / "c"
    make_coordinator(folder, address="localhost:9443", name="trial")
    monkeypatch.setenv("PATH", str(short))
    monkeypatch.setattr("fedtl.launch.coordinator.proxy._PLACES", ())
    with pytest.raises(ConfigError, match="apt-get install nginx-light") as caught:
        up(folder)
    assert caught.value.code == "server.nginx"


def test_a_certificate_that_ends_soon_is_renewed_when_the_server_starts(short: Path) -> None:
    folder = short / "c"
    made = make_coordinator(folder, address=f"localhost:{free_port()}", name="trial")
    _make(folder, "server", ("localhost",), 20)
    soon = expires(made.certificate)
    try:
        up(folder)
        assert (expires(made.certificate) - soon).days > 300
    finally:
        services.stop(folder)
