"""How Flower's own programs are started on both sides: which one, and in what environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HERE = ("127.0.0.1", "localhost")


def program(name: str) -> str:
    """Return the path of a program of the environment that fedtl runs in."""
    return str(Path(sys.executable).parent / name)


def environment(flower_home: Path) -> dict[str, str]:
    """Return the variables for Flower's programs, to be added to those of this process.

    Nothing is reported to anybody (telemetry, the look for updates), a message is taken up at once
    rather than after a second, and no proxy is asked for connections within this machine.

    Parameters
    ----------
    flower_home : Path
        Flower's own folder; on the coordinator's side its ``config.toml`` names the connection.
    """
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    unproxied = ",".join((*filter(None, before.split(",")), *_HERE))
    programs = str(Path(sys.executable).parent)
    return {
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "NO_PROXY": unproxied,
        "no_proxy": unproxied,
        # Flower starts its helpers by name
        "PATH": os.pathsep.join((programs, os.environ.get("PATH", os.defpath))),
    }
