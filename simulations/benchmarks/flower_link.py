"""A real SuperLink on loopback for a benchmark, with SuperNodes, and Flower apps run on it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fedtl.errors import TransportError
from fedtl.launch.flower_app import write_app
from fedtl.launch.flower_processes import environment, program

HERE = Path(__file__).resolve().parent
LONGEST_SECONDS = 1500
_UP_SECONDS, _DOWN_SECONDS = 90, 20


@dataclass(frozen=True, slots=True)
class Link:
    """A SuperLink that is up.

    Attributes
    ----------
    folder : Path
        For logs, apps and answers.
    port : int
        On loopback, for everything.
    process : psutil.Process
        SuperLink itself.
    """

    folder: Path
    port: int
    process: psutil.Process

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def run(self, app: Path, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run an app whose ServerApp is ``wire_server.py``, and return its answer.

        Raises
        ------
        TransportError
            The run ended without an answer; the end of its log is quoted.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            asked, told = Path(work, "job.json"), Path(work, "answer.json")
            asked.write_text(json.dumps({**job, "answer": str(told)}), encoding="utf-8")
            config = f"run='{asked}'"
            command = [program("flwr"), "run", str(app), "here", "--run-config", config, "--stream"]
            done = subprocess.run(
                command,
                env=_variables(self.folder),
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST_SECONDS,
            )
            if not told.is_file():
                log = (self.folder / "superlink.log").read_text("utf-8", "replace")
                errors = [line for line in log.splitlines() if "ERROR" in line][-5:]
                said = "\n".join((done.stdout[-1000:], done.stderr[-500:], *errors))
                raise TransportError(f"The Flower app ended without an answer: {said}")
            answer: dict[str, Any] = json.loads(told.read_text("utf-8"))
            return answer


def app_folder(folder: Path, *, client: Path | None = None) -> Path:
    """Write a Flower app around ``wire_server.py``; its ClientApp is fedtl's or the given file."""
    write_app(folder)
    shutil.copy(HERE / "wire_server.py", folder / "server" / "app.py")
    if client is not None:
        shutil.copy(client, folder / "client" / "app.py")
    return folder


@contextmanager
def superlink(folder: Path) -> Iterator[Link]:
    """Start a SuperLink and wait until it answers; it ends with the block."""
    (port,) = free_ports(1)
    home = folder / "flower"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n",
        encoding="utf-8",
    )
    where = ("--insecure", "--host", "127.0.0.1", "--port", str(port))
    command = (
        *(program("flower-superlink"), *where, "--database", str(folder / "superlink.db")),
        "--disable-runtime-dependency-installation",
    )
    with running(folder, "superlink", command) as process:
        _wait_for(port, process)
        yield Link(folder, port, process)


@contextmanager
def supernodes(link: Link, configs: Sequence[str]) -> Iterator[list[psutil.Process]]:
    """Start a SuperNode for every node config; they end with the block."""
    with ExitStack() as stack:
        started = []
        for at, (port, config) in enumerate(zip(free_ports(len(configs)), configs, strict=True)):
            command = (
                *(program("flower-supernode"), "--insecure", "--superlink", link.address),
                *("--host", "127.0.0.1", "--port", str(port), "--node-config", config),
            )
            started.append(stack.enter_context(running(link.folder, f"node-{at}", command)))
        yield started


@contextmanager
def running(folder: Path, name: str, command: Sequence[str]) -> Iterator[psutil.Process]:
    """Run a program with all that it starts, until the block is left."""
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            command, env=_variables(folder), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield psutil.Process(started.pid)
    finally:
        _stop(psutil.Process(started.pid))
        started.wait()


def _stop(process: psutil.Process) -> None:
    """Stop a program and all that it has started: Flower gives apps sessions of their own."""
    family = [process, *process.children(recursive=True)]
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    psutil.wait_procs([process], timeout=_DOWN_SECONDS)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=_DOWN_SECONDS)


def app_seconds(nodes: Sequence[psutil.Process]) -> float:
    """Return the processor time of all ClientApps that SuperNodes have had so far."""
    total = 0.0
    for starter in itertools.chain.from_iterable(node.children() for node in nodes):
        times = starter.cpu_times()
        total += times.children_user + times.children_system
        for app in starter.children():  # those that are not gone yet
            with suppress(psutil.NoSuchProcess):
                total += sum(app.cpu_times()[:2])
    return total


def peak_bytes(process: psutil.Process) -> int:
    """Return the largest resident memory that a process has had, as Linux tells it."""
    lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def stoppable() -> None:
    """Make SIGTERM leave all blocks, so that nothing that was started is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]


def _variables(folder: Path) -> dict[str, str]:
    return {**os.environ, **environment(folder / "flower")}


def _wait_for(port: int, process: psutil.Process) -> None:
    until = time.monotonic() + _UP_SECONDS
    while time.monotonic() < until and process.status() != psutil.STATUS_ZOMBIE:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        time.sleep(0.2)
    raise TransportError("SuperLink does not come up.", next_step="Start flower-superlink alone.")
