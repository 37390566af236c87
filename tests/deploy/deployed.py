"""A federation that is deployed as units and container files say.

The server runs as its unit says, the site north as its unit with two users says and through a
proxy, the site south as its container file says. The sites' images hold canaries.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from connect_proxy import ConnectProxy
from machines import free_port
from PIL import Image
from sandbox import NOBODY, ROOT, VENV, Sandbox, unit, words_of

from fedtl.cli import main
from fedtl.launch import services
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.site.folder import make_site

CANARY = "canary7Qz"
"""Begins every file name and patient id at the sites."""
RECIPE = """
name = "trial"
[backbone]
image_size = 32
[train]
rounds = 2
[privacy]
unit = "group"
public_size = 20
metrics = "noised"
[federation]
patience = 5
"""
OPT = {"/opt/fedtl": VENV}
FOLDER = "/var/lib/fedtl/coordinator"


@dataclass
class Deployed:
    """A federation that is up, and what was said by the run that it made."""

    place: Path
    metrics: dict[str, int]
    proxy: ConnectProxy
    server: Sandbox
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    said: str = ""

    @property
    def coordinator(self) -> Path:
        return self.place / "server" / "coordinator"

    def operator(self, *arguments: str) -> str:
        """Run a command of fedtl's as the server's user, and return what it says."""
        done = self.server.run("/opt/fedtl/bin/fedtl", *arguments, timeout=600)
        said = done.stdout + done.stderr
        logs = [self.logs(folder)[-3000:] for folder in self.place.glob("*/*/")]
        started = (self.place / "started.log").read_text()
        assert done.returncode == 0, "\n".join([said, started, *logs])
        return said

    def site(self, name: str) -> Path:
        return self.place / name / "site"

    def logs(self, folder: Path) -> str:
        files = (folder / "logs").glob("*")
        return "".join(path.read_text(errors="replace") for path in files)


def make(place: Path, proxy: ConnectProxy) -> Deployed:
    found = unit(ROOT / "server/systemd/fedtl-server.service")
    server = Sandbox(
        writable={"/var/lib/fedtl": place / "server", "/var/cache/fedtl": place / "server-cache"},
        readable=OPT,
        environment=dict(pair.split("=", 1) for pair in found["Environment"]),
    )
    ports = {name: free_port() for name in ("server", "north", "south")}
    made = Deployed(place, ports, proxy, server)
    for name in ("server-cache", "north-cache", "south-cache", "north", "south", "server"):
        (place / name).mkdir(mode=0o711)
    # no name of this machine: connections to those take no proxy
    make_coordinator(made.coordinator, address=f"127.0.0.2:{free_port()}", name="trial")
    set_key(made.coordinator / "server.toml", "metrics_port = 0", ports["server"])
    (made.coordinator / "recipe.toml").write_text(RECIPE)
    return made


def start(made: Deployed) -> None:
    give(made.place / "server", made.place / "server-cache")
    command = unit(ROOT / "server/systemd/fedtl-server.service")["ExecStart"][0].split()
    log = made.place / "started.log"
    made.processes["server"] = made.server.start(command, log)
    wait(lambda: _up(made.coordinator, 3), made, "the server")
    for name in ("north", "south"):
        _join(made, name)
    give(made.place / "server", made.place / "south", made.place / "south-cache")
    made.processes["north"] = _north(made, log)
    made.processes["south"] = _south(made, log)
    made.said = made.operator("run", f"{FOLDER}/recipe.toml", "--on", FOLDER)


def _join(made: Deployed, name: str) -> None:
    plant(made.place / f"{name}-images", seed=len(name))
    make_site(made.site(name), name=name, source="/srv/images/all.csv")
    settings = made.site(name) / "site.toml"
    set_key(settings, "metrics_port = 0", made.metrics[name])
    set_key(settings, "image_size = 0", 32)
    set_key(settings, "tolerate_unreadable = 0", 1)
    key, letter = made.coordinator / f"{name}.pub", made.coordinator / f"{name}.invite"
    shutil.copy(made.site(name) / "node.pub", key)
    key.chmod(0o644)
    to = f"{FOLDER}/{name}.invite"
    made.operator("server", "invite", FOLDER, name, "--key", f"{FOLDER}/{name}.pub", "--out", to)
    assert main(["site", "join", str(made.site(name)), str(letter), "--yes"]) == 0


def _north(made: Deployed, log: Path) -> subprocess.Popen[bytes]:
    """Start a site as its unit says, with the drop-in for two users, and through a proxy."""
    set_key(made.site("north") / "site.toml", 'supernode_user = ""', '"nobody"')
    found = unit(ROOT / "client/systemd/fedtl-site.service")
    safer = unit(ROOT / "client/systemd/fedtl-site.service.d/two-users.conf")
    sandbox = Sandbox(
        writable={
            "/var/lib/fedtl": made.place / "north",
            "/var/cache/fedtl": made.place / "north-cache",
        },
        readable={**OPT, "/srv/images": made.place / "north-images"},
        environment={
            **dict(pair.split("=", 1) for pair in found["Environment"]),
            "HTTPS_PROXY": made.proxy.url,
        },
        powers=safer["CapabilityBoundingSet"][0].split(),
    )
    return sandbox.start(found["ExecStart"][0].split(), log)


def _south(made: Deployed, log: Path) -> subprocess.Popen[bytes]:
    """Start a site as its container file says."""
    file = ROOT / "client/Containerfile"
    words = words_of(file, "ENTRYPOINT") + words_of(file, "CMD")
    sandbox = Sandbox(
        writable={"/site": made.site("south"), "/cache": made.place / "south-cache"},
        readable={**OPT, "/srv/images": made.place / "south-images"},
        environment={
            "FEDTL_HOME": "/cache",
            "HOME": "/tmp",
            "PATH": "/opt/fedtl/bin:/usr/bin:/bin",
        },
    )
    return sandbox.start(words, log)


def plant(folder: Path, *, seed: int) -> None:
    """Write twenty pictures of ten patients, and one that is broken; names hold the canary."""
    rng, rows = np.random.default_rng(seed), ["path,label,group"]
    folder.mkdir()
    for at in range(40):
        label, name = ("benign", "malignant")[at % 2], f"{CANARY}-file-{at}.png"
        low = 90 * (at % 2)
        pixels = rng.integers(low, low + 120, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        rows.append(f"{name},{label},{CANARY}-patient-{at // 2}")
    (folder / f"{CANARY}-broken.png").write_bytes(b"no picture")
    rows.append(f"{CANARY}-broken.png,benign,{CANARY}-patient-0")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")


def set_key(file: Path, line: str, value: object) -> None:
    text, key = file.read_text(), line.split(" = ")[0]
    assert line in text, f"{file.name} has no line '{line}'"
    file.write_text(text.replace(line, f"{key} = {value}", 1))


def give(*folders: Path) -> None:
    """Give folders to the user of the sandboxes."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def wait(ready: Callable[[], bool], made: Deployed, what: str, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not ready():
        ended = [name for name, process in made.processes.items() if process.poll() is not None]
        assert not ended, f"{ended}: {(made.place / 'started.log').read_text()}"
        assert time.monotonic() < until, f"{what} did not come up"
        time.sleep(0.3)


def _up(folder: Path, n: int) -> bool:
    states = services.status(folder)
    return len(states) == n and all(s.state == "running" for s in states) and _answers(folder)


def _answers(folder: Path) -> bool:
    from fedtl.launch.coordinator.up import _healthy

    return _healthy(read_server(folder))
