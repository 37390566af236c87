"""Another machine, as a network namespace with one cable to here; free ports; and patience."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The other machine, or this one and the reason why there is no other.

    ``here`` is this machine's address as seen from there, ``prefix`` runs a command there,
    ``cable`` is this end's device.
    """

    here: str = "127.0.0.1"
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    cable: str = ""
    reason: str = ""


@contextmanager
def another_machine(name: str, network: int) -> Iterator[Machine]:
    """Make a machine in 10.NETWORK.0.0/16, different for each process of tests."""
    number = os.getpid() % 250
    here, there = f"10.{network}.{number}.1", f"10.{network}.{number}.2"
    space, cable = f"{name}{os.getpid()}", f"{name}{number}"
    inside = ("ip", "netns", "exec", space)
    steps = (
        ("ip", "netns", "add", space),
        ("ip", "link", "add", cable, "type", "veth", "peer", "name", f"{cable}b", "netns", space),
        ("ip", "addr", "add", f"{here}/30", "dev", cable),
        ("ip", "link", "set", cable, "up"),
        (*inside, "ip", "addr", "add", f"{there}/30", "dev", f"{cable}b"),
        (*inside, "ip", "link", "set", f"{cable}b", "up"),
        (*inside, "ip", "link", "set", "lo", "up"),
    )
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield Machine(reason="another machine needs root and iproute2")
        return
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        subprocess.run(("ip", "netns", "del", space), check=False, capture_output=True)
        yield Machine(reason=f"no network namespaces: {error.stderr!r}")
        return
    try:
        yield Machine(here, there, inside, cable)
    finally:
        subprocess.run(("ip", "netns", "del", space), check=False)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(true: Callable[[], object], seconds: float = 120, pause: float = 0.1) -> bool:
    """Wait until something holds; the wait is generous, because machines are slow at times."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(pause)
    return False
