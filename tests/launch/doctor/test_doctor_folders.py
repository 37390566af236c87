"""What the doctor finds in a folder, before anything runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.doctor import found_server, found_site
from fedtl.launch.doctor.server import diagnose_server
from fedtl.launch.doctor.site import diagnose_site
from fedtl.site.folder import make_site


def test_a_site_that_has_not_joined_and_does_not_run_is_told_what_to_do(tmp_path: Path) -> None:
    make_site(tmp_path / "site", name="north", source="digits")
    found = {finding.name: finding for finding in diagnose_site(tmp_path / "site")}
    assert "has not joined" in found["server"].what
    assert "fedtl site join" in found["server"].cure
    assert "fedtl site up" in found["agent"].cure
    assert found["permissions"].state == "ok"


def test_a_key_that_others_may_read_is_broken(tmp_path: Path) -> None:
    make_site(tmp_path / "site", name="north", source="digits")
    (tmp_path / "site" / "node.key").chmod(0o644)
    found = {finding.name: finding for finding in diagnose_site(tmp_path / "site")}
    assert found["permissions"].state == "broken"
    assert "chmod go-rwx" in found["permissions"].cure
    assert "node.key" in found["permissions"].what


def test_a_port_that_another_program_has_is_found_before_the_server_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        make_coordinator(tmp_path / "c", address=f"localhost:{port}", name="trial")
        found = {finding.name: finding for finding in diagnose_server(tmp_path / "c")}
    assert found[f"port {port}"].state == "broken"
    assert "fedtl server up" in found["nginx"].cure
    assert "fedtl server invite" in found["sites"].cure
    assert found["coordinator's key"].state == "ok"


def test_a_lost_key_and_a_folder_that_is_none_are_findings(tmp_path: Path) -> None:
    make_coordinator(tmp_path / "c", address="localhost:9443", name="trial")
    (tmp_path / "c" / "coordinator.key").unlink()
    found = {finding.name: finding for finding in diagnose_server(tmp_path / "c")}
    assert found["key"].state == "broken"
    assert "copy" in found["key"].cure
    for examine in (diagnose_server, diagnose_site):
        (only,) = examine(tmp_path / "nowhere")
        assert only.state == "broken"
        assert only.cure


def test_folders_are_found_where_the_commands_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (found_site(), found_server()) == (None, None)
    make_site(tmp_path / "site", name="north", source="digits")
    make_coordinator(tmp_path / "coordinator", address="localhost:9443", name="trial")
    assert (found_site(), found_server()) == (Path("site"), Path("coordinator"))
