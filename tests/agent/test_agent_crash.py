"""An agent that is killed or stopped while it prepares or receives goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from senders import Sender, card_and_weights

from fedtl.agent.agent_pb2 import State
from fedtl.agent.client import AgentClient
from fedtl.errors import TransportError
from fedtl.features import usage
from fedtl.privacy.ledger import Ledger
from fedtl.site.folder import make_site

IMAGES = 6000


@pytest.fixture
def state(tmp_path: Path, fresh_home: Path) -> Path:
    """A site with so many small images that making their features takes some seconds."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (IMAGES, 12, 12), dtype=np.uint8)
    np.savez(tmp_path / "ward.npz", x=x, y=np.arange(IMAGES) % 2)
    make_site(tmp_path / "site", name="north", source=str(tmp_path / "ward.npz"))
    file = tmp_path / "site" / "site.toml"
    file.write_text(file.read_text().replace("image_size = 0", "image_size = 48"))
    return tmp_path / "site"


@pytest.fixture
def start(state: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        with (state / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "fedtl", "site", "agent", str(state)]
            started.append(subprocess.Popen(command, stderr=log, start_new_session=True))
        wait_for(state, lambda told: True)
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(state: Path, enough: Callable[[State], bool]) -> State:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            told = AgentClient(state / "agent.sock").status(timeout=2)
            if enough(told):
                return told
        except TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError((state / "agent.log").read_text())


def features() -> int:
    """Return the bytes of features that are on disk."""
    return sum(entry.n_bytes for entry in usage())


def test_an_agent_killed_while_it_prepares_goes_on(
    state: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = start()
    wait_for(state, lambda told: told.phase == "features" and told.done > 2100)
    first.kill()
    first.wait()
    assert features()
    start()
    told = wait_for(state, lambda told: told.phase == "features")
    assert 0 < told.total <= IMAGES - 2000
    wait_for(state, lambda told: told.state == "ready")


def test_an_agent_stopped_while_it_prepares_keeps_all_features_and_leaves_nothing(
    state: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = start()
    told = wait_for(state, lambda told: told.phase == "features" and told.done > 300)
    first.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert first.wait(20) == 0
    assert time.monotonic() - began < 8
    assert not (state / "agent.sock").exists()
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        ledger.verify()
    start()
    again = wait_for(state, lambda told: told.phase == "features")
    assert again.total <= IMAGES - told.done


def test_a_transfer_goes_on_after_the_agent_was_killed(
    state: Path, start: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    file = state / "site.toml"
    file.write_text(file.read_text().replace('name = "tf_efficientnet_lite0"', 'name = ""'))
    card, weights = card_and_weights(tmp_path / "coordinator", image_size=48)
    first, sender = start(), Sender(state / "agent.sock", card, weights)
    size = 4 << 20
    assert sender.offer() == 0
    assert sender.piece(0, size) == size
    first.kill()
    first.wait()
    assert sender.piece(size, size) == "agent.unavailable"
    second = start()
    assert sender.piece(size, size) == 2 * size  # no word about what went before
    second.kill()
    second.wait()
    start()
    assert sender.offer() == 2 * size
    assert sender.send(size) == len(weights)
    assert wait_for(state, lambda told: told.phase == "features").state == "preparing"


def test_a_disk_that_does_not_answer_does_not_keep_the_agent(
    state: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A table of images that nobody ever finishes writing: reading it waits without end."""
    os.mkfifo(state.parent / "ward.csv")
    file = state / "site.toml"
    file.write_text(file.read_text().replace("ward.npz", "ward.csv"))
    agent = start()
    time.sleep(1)
    assert wait_for(state, lambda told: True).state == "preparing"
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(25) == 0
    assert not (state / "agent.sock").exists()
    assert "the ledger is closed" in (state / "agent.log").read_text()
