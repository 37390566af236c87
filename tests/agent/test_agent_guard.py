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

import numpy as np
import pytest
from PIL import Image

from fedtl.home import home
from fedtl.privacy.ledger import Ledger
from fedtl.site.folder import make_site

APP, GROUP = 64002, 64003
"""A Unix user of no other use, and the group that may use the agent's socket."""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def site() -> Iterator[Path]:
    """A site's files in a place that the other user can walk to, as the README tells to set it up.

    The state folder belongs to the socket's group, whose members may walk to the socket only.
    """
    place = Path(tempfile.mkdtemp(prefix="guard-"))
    place.chmod(0o755)
    rng = np.random.default_rng(0)
    for at in range(20):
        label = ("benign", "malignant")[at % 2]
        (place / "images" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(90 * (at % 2), 90 * (at % 2) + 120, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / label / f"{at}.png")
    (place / "images").chmod(0o700)
    make_site(place / "state", name="north", source=str(place / "images"))
    file = place / "state" / "site.toml"
    file.write_text(file.read_text().replace("image_size = 0", "image_size = 32"))
    os.chown(place / "state", -1, GROUP)
    (place / "state").chmod(0o2710)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def state(site: Path) -> Iterator[Path]:
    """Serve the site; return its state folder."""
    state = site / "state"
    agent = subprocess.Popen(
        [sys.executable, "-m", "fedtl", "site", "agent", str(state), "--mode", "660"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 90
    while not (state / "agent.sock").exists() and time.monotonic() < until:
        assert agent.poll() is None, agent.stderr and agent.stderr.read()
        time.sleep(0.1)
    yield state
    agent.terminate()
    agent.communicate(timeout=30)


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


def test_a_hostile_app_gets_nothing_and_spends_nothing(state: Path) -> None:
    found = hostile(state, group=GROUP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert found["a raw update"] == found["raw sums"] == "policy.unprotected"
    assert found["the labels"] == found["the exact results"] == "policy.metrics"
    assert found["the features"] == "message.invalid"
    assert found["read the ledger"] == "PermissionError"
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.entries() == ()


def test_outside_the_group_the_socket_is_shut(state: Path) -> None:
    found = hostile(state, group=APP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert found["a raw update"] == "agent.unavailable"
