"""What the tests of the coordinator share: another machine, and SuperNodes that run there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machines import Machine, free_port

from fedtl.launch.coordinator.config import Coordinator
from fedtl.launch.coordinator.link import nodes
from fedtl.launch.flower_processes import environment, program

HERE = Path(__file__).parent


class Elsewhere:
    """The other machine, or this one where there is no other."""

    def __init__(self, machine: Machine) -> None:
        self.here, self.address = machine.here, machine.address
        self.prefix, self.reason = machine.prefix, machine.reason

    def ask(self, port: int, ca: Path | None, requests: Sequence[str]) -> list[list[int]]:
        """Send raw requests from there, and return the status codes of each."""
        asked = {"host": self.here, "port": port, "ca": ca and str(ca), "requests": [*requests]}
        done = subprocess.run(
            [*self.prefix, sys.executable, str(HERE / "outsider.py")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        told: list[list[int]] = json.loads(done.stdout)
        return told


@dataclass
class Federation:
    """A coordinator that is up."""

    coordinator: Coordinator
    elsewhere: Elsewhere
    scratch: Path

    @property
    def folder(self) -> Path:
        return self.coordinator.folder

    @property
    def port(self) -> int:
        return int(self.coordinator.config.address.rpartition(":")[2])

    @contextmanager
    def supernode(
        self, key: Path | None, log: Path, *, ca: Path | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a SuperNode on the other machine."""
        command = [
            *self.elsewhere.prefix,
            program("flower-supernode"),
            *("--superlink", self.coordinator.config.address),
            *("--root-certificates", str(ca or self.coordinator.ca)),
            *("--port", str(free_port())),
            *(("--auth-supernode-private-key", str(key)) if key else ()),
        ]
        settings = {**os.environ, **environment(self.scratch / "node-home")}
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=settings, stdout=file, stderr=file, start_new_session=True
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def is_online(self, site: str) -> bool:
        return any(node.site == site and node.online for node in nodes(self.folder).values())
