"""Long-lived processes of a state folder, kept running by supervisord; the same on both sides.

In the folder: ``services.conf`` (written at each start), ``services.sock``, ``services.pid``
(gone after a stop), and ``logs/``. Only the folder's owner can read or ask any of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from fedtl.agent.calls import LONGEST_PATH
from fedtl.errors import ConfigError
from fedtl.launch.logs import last_lines
from fedtl.launch.supervised import CONFIG, LOGS, PID_FILE, SOCKET, Service, write_config

__all__ = ["KEEPER", "Service", "ServiceState", "log_file", "start", "status", "stop"]

KEEPER = "services"
"""Name of supervisord's own log."""
MARK = "FEDTL_SERVICES"
"""Environment variable that every process of a folder inherits: the folder."""
_PID_DIGITS = 8  # supervisord binds SOCKET.pid before it links it into place
_STATES = {"BACKOFF": "failing", "FATAL": "failed", "EXITED": "ended"}
_ALIVE = ("stopped", "starting", "running")  # stopped: not yet started
_PAUSE = 0.1
_LONGEST_STOP_SECONDS = 120.0
_KILLED_SECONDS = 5.0
_NOBODY = (OSError, HTTPException, xmlrpc.client.Error)
"""What asking for a supervisord raises that is gone, or about to go."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What supervisord says of one service.

    Attributes
    ----------
    name : str
        Of the service.
    state : str
        ``starting``, ``running``, ``stopping``, ``stopped``, ``failing`` (ended at once and is
        tried again), ``failed`` or ``ended``.
    pid : int
        0 where no process is.
    seconds : float
        Since the process started; 0 where none is.
    detail : str
        Why it does not run, as far as known.
    """

    name: str
    state: str
    pid: int
    seconds: float
    detail: str


def log_file(folder: Path, name: str) -> Path:
    """Return the file that holds what a service prints; older ones end in ``.1``, ``.2``, ..."""
    return folder / LOGS / f"{name}.log"


def start(
    folder: Path,
    services: Sequence[Service],
    *,
    foreground: bool = False,
    patience_seconds: float = 90.0,
) -> None:
    """Start services in this order, and wait until all of them are ready.

    They go on after this process ends. If one of them ends at once, all are stopped again.

    Parameters
    ----------
    folder : Path
        An existing state folder.
    services : sequence of Service
        Stopped in reverse order.
    foreground : bool
        Never return: this process becomes supervisord, which SIGTERM stops with all services. For
        systemd and containers. Services that end are started again from the beginning.
    patience_seconds : float
        How long to wait for the services to be ready.

    Raises
    ------
    ConfigError
        ``services.running``: they run already. ``services.failed``: one did not come up; its last
        lines are told. ``services.path``: the folder's path is too long or holds odd characters.
    CacheError
        The folder cannot be written.
    """
    folder = folder.resolve()
    _check_path(folder)
    if status(folder):
        raise ConfigError(
            f"The services of '{folder}' are running already.",
            next_step="Look at their status, or stop them first with `down`.",
            code="services.running",
        )
    _await_end(folder)
    write_config(folder, services)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", CONFIG]
    environment = {**os.environ, MARK: str(folder)}
    if foreground:
        os.chdir(folder)
        os.umask(0o077)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [*command, "-n"], environment)
    _launch(folder, command, environment)
    _await(folder, services, patience_seconds)


def stop(folder: Path) -> bool:
    """Stop all services of a folder; False if none was running. Nothing is left behind."""
    folder = folder.resolve()
    with suppress(*_NOBODY), _Server(folder) as server:
        server.supervisor.shutdown()
    served = _is_served(folder)
    ran = _await_end(folder) or served
    for name in (SOCKET, PID_FILE):
        (folder / name).unlink(missing_ok=True)
    return ran


def status(folder: Path) -> list[ServiceState]:
    """Return the state of each service of a folder; empty if they are not running."""
    folder = folder.resolve()
    if not (folder / SOCKET).exists():
        return []
    try:
        with _Server(folder) as server:
            rows: Any = server.supervisor.getAllProcessInfo()
    except _NOBODY:
        return []
    return [_state(row) for row in rows]


def _state(row: Mapping[str, Any]) -> ServiceState:
    state = _STATES.get(row["statename"], row["statename"].lower())
    alive = row["pid"] != 0
    seconds = max(0.0, float(row["now"] - row["start"])) if alive else 0.0
    detail = "" if alive else str(row["spawnerr"] or row["description"])
    return ServiceState(row["name"], state, row["pid"], seconds, detail)


class _Server(xmlrpc.client.ServerProxy):
    """Supervisord's own interface, on the socket of a folder."""

    def __init__(self, folder: Path) -> None:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{folder / SOCKET}")
        super().__init__("http://127.0.0.1", transport=transport)


def _check_path(folder: Path) -> None:
    longest = LONGEST_PATH - _PID_DIGITS
    if len(os.fsencode(folder / SOCKET)) > longest:
        raise ConfigError(
            f"The path '{folder / SOCKET}' has more than {longest} bytes, too many for a socket.",
            next_step="Move the folder to a shorter path.",
            code="services.path",
        )


def _launch(folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run supervisord, which leaves this process once it has read its configuration."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise ConfigError(
            f"The services of '{folder}' could not be started: {said}",
            next_step=f"See '{log_file(folder, KEEPER)}'.",
            code="services.failed",
        )


def _await(folder: Path, services: Sequence[Service], patience_seconds: float) -> None:
    """Wait until all services are ready; stop them all if one is not."""
    until = time.monotonic() + patience_seconds
    waiting = {service.name: service for service in services}
    first: dict[str, int] = {}
    try:
        while waiting:
            for state in status(folder):
                if (service := waiting.get(state.name)) is None:
                    continue  # it did come up, however slow another one is
                if _has_ended(state, first):
                    raise _failed(folder, state.name, "ended at once")
                if state.state == "running" and _ready(service):
                    del waiting[state.name]
            if waiting and time.monotonic() > until:
                slow = f"was not ready after {patience_seconds:.0f} seconds"
                raise _failed(folder, next(iter(waiting)), slow)
            time.sleep(_PAUSE)
    except BaseException:
        stop(folder)
        raise


def _has_ended(state: ServiceState, first: dict[str, int]) -> bool:
    """Say whether a service has ended since its first look; it may be started again by now."""
    if state.pid:
        first.setdefault(state.name, state.pid)
    return state.state not in _ALIVE or state.pid != first.get(state.name, state.pid)


def _ready(service: Service) -> bool:
    return service.ready is None or service.ready()


def _failed(folder: Path, name: str, how: str) -> ConfigError:
    path = log_file(folder, name)
    said = " | ".join(line for line in last_lines(path, 6) if line.strip())
    return ConfigError(
        f"The service '{name}' {how}. Its last lines: {said or '(none)'}",
        next_step=f"Mend the cause and start again; the whole log is '{path}'.",
        code="services.failed",
    )


def _await_end(folder: Path) -> bool:
    """Wait until no process of a folder is left, and say whether there was one.

    Flower puts its helpers in sessions of their own, where no signal to a group finds them.
    """
    until = time.monotonic() + _LONGEST_STOP_SECONDS
    found = left = _processes(folder)
    while (left or _is_served(folder)) and time.monotonic() < until + _KILLED_SECONDS:
        if time.monotonic() > until:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
        time.sleep(_PAUSE)
        left = _processes(folder)
    return bool(found)


def _is_served(folder: Path) -> bool:
    """Say whether a supervisord still holds the socket, be it about to go."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(folder / SOCKET))
        return True
    return False


def _processes(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _belongs(process, folder)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error, OSError):  # zombies, and what belongs to others
        return bool(process.pid != os.getpid() and process.environ().get(MARK) == str(folder))
    return False
