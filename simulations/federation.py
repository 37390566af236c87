"""A whole federation on this machine: server, three sites with a part of the digits each, one run.

Everything is as between institutions: processes of their own, TLS, keys, agents that guard the
data; only the network is this machine's. Called by ``make federation``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedtl.launch.federation import open_and_cut
from fedtl.recipe import load_recipe

FEDTL = Path(sys.executable).parent / "fedtl"
SETTINGS = ("--set", "privacy.public_size=290", "--set", "privacy.metrics=noised")
"""What the default recipe leaves to a simulation, which knows the data."""


def main(argv: Sequence[str] | None = None) -> int:
    """Start the federation, run a recipe, and stop everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=3, help="number of sites (default: 3)")
    parser.add_argument("--data", type=Path, help="only write the sites' data, into this folder")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="for the run folder")
    parser.add_argument("options", nargs="*", help="more for `fedtl run`, after --")
    asked = parser.parse_args(argv)
    if asked.data is not None:
        asked.data.mkdir(parents=True, exist_ok=True)
        cut_digits(asked.data, names_of(asked.sites))
        return 0
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # stops all below
    folder = Path(tempfile.mkdtemp(prefix="fedtl-"))  # the paths of sockets have to be short
    try:
        run = Trial(folder, asked.sites).run([*SETTINGS, *asked.options])
        asked.out.mkdir(parents=True, exist_ok=True)
        kept = Path(shutil.move(run, asked.out / run.name))
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # it has said why
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Everything is stopped. Report: {kept / 'report.html'}")
    print(f"{asked.sites} sites, from nothing to the report: {time.monotonic() - started:.0f} s.")
    return 0


class Trial:
    """A federation in one folder."""

    def __init__(self, folder: Path, sites: int) -> None:
        self.folder = folder
        self.names = names_of(sites)
        self.coordinator = folder / "coordinator"

    def run(self, options: Sequence[str]) -> Path:
        """Set up, run, and stop; return the run folder."""
        cut_digits(self.folder, self.names)
        address = f"localhost:{free_port()}"
        try:
            self.fedtl("server", "init", self.coordinator, "--address", address)
            self.fedtl("server", "up", self.coordinator)
            for name in self.names:
                self.join(name)
            self.fedtl("run", "--on", self.coordinator, *options)
        finally:
            self.stop()
        (run,) = (self.coordinator / "runs").iterdir()
        return run

    def stop(self) -> None:
        """Stop everything, whoever presses Ctrl-C meanwhile."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for name in self.names:
                self.fedtl("site", "down", self.folder / name, check=False, site=name)
            self.fedtl("server", "down", self.coordinator, check=False)
        finally:
            signal.signal(signal.SIGINT, before)

    def join(self, name: str) -> None:
        """Set up a site, let it in, and start it."""
        site, data = self.folder / name, self.folder / f"{name}.npz"
        invitation = self.folder / f"{name}.invite"
        self.fedtl("site", "init", site, "--name", name, "--data", data)
        settings = site / "site.toml"  # the coordinator sends the backbone
        text = settings.read_text().replace('name = "tf_efficientnet_lite0"', 'name = ""')
        settings.write_text(text)
        key, to = site / "node.pub", ("--out", invitation)
        self.fedtl("server", "invite", self.coordinator, name, "--key", key, *to)
        self.fedtl("site", "join", site, invitation, "--yes")
        self.fedtl("site", "up", site, site=name)

    def fedtl(self, *arguments: object, check: bool = True, site: str = "") -> None:
        """Run one command as a user would, and show it."""
        words = [str(word) for word in arguments]
        print(f"$ fedtl {shlex.join(words)}".replace(f"{self.folder}/", ""), flush=True)
        home = {"FEDTL_HOME": str(self.folder / f"{site}-cache")} if site else {}
        subprocess.run([FEDTL, *words], env={**os.environ, **home}, check=check)


def names_of(sites: int) -> list[str]:
    """Return the names of so many sites."""
    return [f"site-{at}" for at in range(1, sites + 1)]


def cut_digits(folder: Path, names: Sequence[str]) -> None:
    """Write the part of the digits that each site gets, by the default recipe's partition."""
    manifest, rows = open_and_cut(load_recipe(None, {"partition.sites": len(names)}))
    for name, part in zip(names, rows, strict=True):
        mine = np.concatenate([part.train, part.test])
        pixels = np.stack([np.asarray(manifest.source.read(int(row)).pixels) for row in mine])
        np.savez(
            folder / f"{name}.npz",
            x=pixels,
            y=manifest.labels[mine],
            class_names=np.array(manifest.classes),
        )


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
