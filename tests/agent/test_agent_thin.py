"""What Flower's process for a message has to import on top of Flower itself: next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "client"
ADDED = """
import sys
import flwr.supernode.cli.flwr_clientapp
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import app
print(*sorted(set(sys.modules) - before))
"""


def test_the_thin_client_app_adds_a_dozen_small_modules_of_our_own() -> None:
    """Every message of every round pays for each of them."""
    done = subprocess.run(
        [sys.executable, "-c", ADDED, str(CLIENT)], capture_output=True, text=True, check=True
    )
    added = set(done.stdout.split()) - {"app"}
    assert "fedtl.agent.client" in added
    foreign = {name for name in added if name.partition(".")[0] != "fedtl"}
    assert foreign == set()  # neither torch, timm and opacus nor anything that Flower has not
    heavy = ("recipe", "privacy", "train", "site", "data", "features", "backbone", "launch")
    rooms = {name.split(".")[1] for name in added if "." in name}
    assert rooms.isdisjoint(heavy), rooms
    assert len(added) <= 14, added
