"""Serve a simulated site of a recipe from an agent: `python serve_site.py FOLDER NUMBER`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from fedtl.agent.server import serving
from fedtl.launch.federation import build
from fedtl.recipe import load_recipe


def main(folder: Path, at: int) -> None:
    site = build(load_recipe(folder / "linked.toml")).site(at)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    with serving(site, folder / f"{at}.sock"):
        done.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
