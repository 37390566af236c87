"""The units of systemd: it accepts them, and they grant little."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sandbox import ROOT, VENV, unit

UNITS = (
    ROOT / "client" / "systemd" / "fedtl-site.service",
    ROOT / "server" / "systemd" / "fedtl-server.service",
)
MOST_EXPOSED = 2.5
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as it would be on this machine: with its program and a user that exists."""
    text = request.param.read_text("utf-8").replace("/opt/fedtl/bin", str(VENV / "bin"))
    copy = tmp_path / request.param.name
    copy.write_text(text.replace("User=fedtl\n", "User=daemon\n"))
    return copy


@needs_systemd
def test_systemd_accepts_the_unit_and_finds_its_program(here: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_a_unit_grants_little(here: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(here)],
        capture_output=True,
        text=True,
        check=True,
    )
    (score,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    print(f"{here.name}: exposure {score} of 10")
    assert float(score) <= MOST_EXPOSED


@needs_systemd
def test_the_safer_way_of_two_users_is_accepted_too(tmp_path: Path) -> None:
    site = UNITS[0]
    text = site.read_text("utf-8").replace("/opt/fedtl/bin", str(VENV / "bin"))
    (tmp_path / site.name).write_text(text)
    shutil.copytree(site.with_name(f"{site.name}.d"), tmp_path / f"{site.name}.d")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / site.name)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_writes_to_its_state_and_cache_and_nowhere_else(path: Path) -> None:
    found = unit(path)
    assert found["ProtectSystem"] == ["strict"]
    assert found["StateDirectory"] == found["CacheDirectory"] == ["fedtl"]
    assert "ReadWritePaths" not in found
    assert "FEDTL_HOME=/var/cache/fedtl" in found["Environment"]
