"""The guard is real: a hostile ClientApp under another Unix user than the agent's gets nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import small_site

from fedtl.agent.client import AgentClient
from fedtl.errors import TransportError
from fedtl.home import home
from fedtl.privacy.ledger import Ledger

APP, GROUP = 64002, 64003
"""A Unix user of no other use, and the group that may use the agent's socket."""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a site in a place that the other user can walk to; return its state folder.

    The state folder belongs to the socket's group, whose members may walk to the socket only.
    """
    place = Path(tempfile.mkdtemp(prefix="guard-"))
    place.chmod(0o755)
    monkeypatch.setenv("FEDTL_HOME", str(place / "home"))
    state = small_site(place)
    (place / "images").chmod(0o700)
    os.chown(state, -1, GROUP)
    state.chmod(0o2710)
    agent = subprocess.Popen(
        [sys.executable, "-m", "fedtl", "site", "agent", str(state), "--mode", "660"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 90
    while not is_ready(state) and time.monotonic() < until:
        assert agent.poll() is None, agent.stderr and agent.stderr.read()
        time.sleep(0.1)
    yield state
    agent.terminate()
    agent.communicate(timeout=30)
    shutil.rmtree(place)


def is_ready(state: Path) -> bool:
    try:
        return AgentClient(state / "agent.sock").status().state == "ready"
    except TransportError:
        return False


def hostile(state: Path, *, group: int) -> dict[str, str]:
    here = Path(__file__).parent
    places = [str(state), str(state.parent / "images"), str(home())]
    done = subprocess.run(
        [sys.executable, str(here / "hostile_app.py"), *places, str(APP), str(group)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def files(found: dict[str, str]) -> set[str]:
    """Return what all attempts on files, of which there are ten, came to."""
    verbs = ("list", "read", "change", "delete", "take")
    told = [got for what, got in found.items() if what.split()[0] in verbs]
    assert len(told) == 10
    return set(told)


def test_a_hostile_app_gets_nothing_and_spends_nothing(state: Path) -> None:
    found = hostile(state, group=GROUP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert found["a raw update"] == found["raw sums"] == "policy.unprotected"
    assert found["the labels"] == found["the exact results"] == "policy.metrics"
    assert found["the features"] == "message.invalid"
    assert found["an update without its noise"] == "secagg.required"
    assert found["more than the plan"] == "privacy.spent"
    assert files(found) == {"PermissionError"}
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.entries() == ()


def test_outside_the_group_the_socket_is_shut(state: Path) -> None:
    found = hostile(state, group=APP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert files(found) == {"PermissionError"}
    assert found["a raw update"] == found["the labels"] == "agent.unavailable"
