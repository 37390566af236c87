"""A run that ships a hostile ClientApp: what its server is told, over the whole way."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from looked import n_entries
from machines import eventually
from trial import Trial

from fedtl.launch.coordinator.link import run_status, submit
from fedtl.launch.flower_processes import program

APP = Path(__file__).parent / "hostile"
STRICT = "clear_metrics = false\n"
NOBODY = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env")
"""By way of env: what setpriv itself starts is still started with root's powers."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_a_hostile_run_brings_nothing_home(trial: Trial, tmp_path: Path) -> None:
    if subprocess.run([*NOBODY, program("flower-supernode"), "--version"], check=False).returncode:
        pytest.skip("another user cannot execute this Python, which lies in a private folder")
    trial.place.chmod(0o711)  # he has to walk there
    state, data = trial.make("guarded", policy=STRICT), trial.place / "guarded.npz"
    settings = state / "site.toml"
    text = settings.read_text().replace('supernode_user = ""', 'supernode_user = "nobody"')
    settings.write_text(text)
    data.chmod(0o600)
    trial.up("guarded")
    try:
        assert trial.ready("guarded")
        told = shipped(trial, tmp_path / "out.json", state, data)
        assert n_entries(state) == 0
    finally:
        trial.down("guarded")
    assert told.pop("user") == "65534"
    files = {told.pop(what) for what in list(told) if what.startswith("file:")}
    assert files == {"PermissionError"}
    assert told.pop("features") == "message.invalid"
    assert told.pop("labels") == "policy.metrics"
    assert len(told) == 6
    assert set(told.values()) == {"policy.coordinator"}


def shipped(trial: Trial, out: Path, state: Path, data: Path) -> dict[str, str]:
    """Ship the app with a run; return what the server was told by the site."""
    run = submit(trial.coordinator, APP, {"out": str(out), "state": str(state), "data": str(data)})

    def ended() -> bool:
        return run_status(trial.coordinator, run).startswith("finished")

    assert eventually(ended, 240, pause=2)
    (told,) = [one for one in json.loads(out.read_text()) if one]
    found: dict[str, str] = told
    return found
