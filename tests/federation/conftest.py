"""One federation for all tests here: a coordinator, sites beside it, and a cable to others."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from looked import left_behind
from trial import Trial, free_port

from fedtl.launch import services
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.up import up


@dataclass(frozen=True)
class Cable:
    """The way to another machine, a network namespace; or why there is none."""

    here: str = "127.0.0.1"
    device: str = ""
    behind: tuple[str, ...] = ()
    reason: str = ""

    def change(self, *command: str) -> None:
        """Cut the cable, mend it, or make it slow."""
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """Let nothing pass any more; nobody is told."""
        self.change("ip", "link", "set", self.device, "down")

    def mend(self) -> None:
        """Let everything pass again."""
        self.change("ip", "link", "set", self.device, "up")

    def slow(self, rate: str) -> None:
        """Let so much pass in a second, in both directions."""
        limits = ("root", "tbf", "rate", rate, "burst", "16k", "latency", "2s")
        self.change("tc", "qdisc", "add", "dev", self.device, *limits)
        self.change(*self.behind, "tc", "qdisc", "add", "dev", f"{self.device}b", *limits)

    def fast(self) -> None:
        """Undo :meth:`slow`."""
        self.change("tc", "qdisc", "del", "dev", self.device, "root")
        self.change(*self.behind, "tc", "qdisc", "del", "dev", f"{self.device}b", "root")


@pytest.fixture(scope="session")
def cable() -> Iterator[Cable]:
    """Make a network namespace with one cable to here."""
    number = os.getpid() % 250
    name, device, here, there = (
        f"faults{os.getpid()}",
        f"faults{number}",
        f"10.214.{number}.1",
        f"10.214.{number}.2",
    )
    inside = ("ip", "netns", "exec", name)
    steps = (
        ("ip", "netns", "add", name),
        ("ip", "link", "add", device, "type", "veth", "peer", "name", f"{device}b", "netns", name),
        ("ip", "addr", "add", f"{here}/30", "dev", device),
        ("ip", "link", "set", device, "up"),
        (*inside, "ip", "addr", "add", f"{there}/30", "dev", f"{device}b"),
        (*inside, "ip", "link", "set", f"{device}b", "up"),
        (*inside, "ip", "link", "set", "lo", "up"),
    )
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield Cable(reason="another machine needs root and iproute2")
        return
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
        yield Cable(reason=f"no network namespaces: {error.stderr!r}")
        return
    try:
        yield Cable(here, device, inside)
    finally:
        subprocess.run(("ip", "netns", "del", name), check=False)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """Return a folder on a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="ft") as folder:
        yield Path(folder)


@pytest.fixture
def trial(federation: Trial) -> Iterator[Trial]:
    """Return the federation, with all three sites ready and no others; tests leave it so."""
    yield federation
    names = [path.parent.name for path in federation.place.glob("*/site.toml")]
    federation.down(*(name for name in names if name not in federation.names))


@pytest.fixture(scope="session")
def federation(place: Path, cable: Cable, shared_home: Path) -> Iterator[Trial]:
    """Start a coordinator with three sites that are ready."""
    made = Trial(place)
    make_coordinator(made.coordinator, address=f"{cable.here}:{free_port()}", name="trial")
    try:
        up(made.coordinator)
        for name in made.names:
            made.make(name)
            made.up(name)  # does not wait for its agent: the three start side by side
        assert made.ready(*made.names)
        yield made
    finally:
        made.down(*(path.parent.name for path in place.glob("*/site.toml")))
        services.stop(made.coordinator)
    assert left_behind(place) == []
