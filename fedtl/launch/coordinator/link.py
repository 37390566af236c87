"""How SuperLink is asked for things, over loopback, by Flower's own commands."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fedtl.errors import ConfigError, TransportError
from fedtl.launch import services
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.coordinator.folder import CONNECTION
from fedtl.launch.coordinator.sites import enrolled
from fedtl.launch.coordinator.up import SUPERLINK
from fedtl.launch.flower_processes import environment, program

_PATIENCE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Node:
    """An enrolled site, as SuperLink sees it.

    Attributes
    ----------
    node_id : int
        Flower's.
    site : str
        Name it is enrolled under; empty for a node that no record knows.
    online : bool
        Whether its SuperNode has been heard of lately.
    since : str
        Since when (UTC, ISO 8601); empty if it never was online.
    """

    node_id: int
    site: str
    online: bool
    since: str


def flower(folder: Path) -> dict[str, str]:
    """Return the environment for Flower's commands of a coordinator's folder."""
    return {**os.environ, **environment(read_server(folder).flower_home)}


def nodes(folder: Path) -> dict[int, Node]:
    """Return the registered nodes by Flower's id.

    Raises
    ------
    ConfigError
        ``server.down``: SuperLink does not run.
    TransportError
        SuperLink refuses or does not answer.
    """
    names = {record.node: record.name for record in enrolled(folder)}
    rows = ask(folder, "supernode", "list", CONNECTION)["nodes"]
    found = (_node(row, names) for row in rows if row["status"] != "unregistered")
    return {node.node_id: node for node in found}


def _node(row: Mapping[str, Any], names: Mapping[int, str]) -> Node:
    number, online = int(row["node-id"]), row["status"] == "online"
    since = row["online-at"] if online else row["offline-at"]
    since = "" if since == "N/A" else since.replace(" ", "T")
    return Node(number, names.get(number, ""), online, since)


def register(folder: Path, key: Path, name: str) -> int:
    """Let a key in, and return its node id; errors as :func:`nodes`."""
    told = ask(folder, "supernode", "register", str(key.resolve()), CONNECTION, "--name", name)
    return int(told["node-id"])


def unregister(folder: Path, node_id: int) -> None:
    """Let a node in no longer; errors as :func:`nodes`."""
    ask(folder, "supernode", "unregister", str(node_id), CONNECTION)


def submit(folder: Path, app: Path, run_config: Mapping[str, str | int | float | bool]) -> int:
    """Start a run of a Flower app, and return its id.

    Parameters
    ----------
    folder : Path
        The coordinator's.
    app : Path
        Folder with the app's ``pyproject.toml``. What it needs has to be installed already.
    run_config : mapping
        Values for keys of ``[tool.flwr.app.config]``.

    Raises
    ------
    ConfigError, TransportError
        As :func:`nodes`.
    """
    with tempfile.NamedTemporaryFile(suffix=".toml") as values:
        values.write(tomli_w.dumps(run_config).encode())
        values.flush()
        config = ("--run-config", values.name) if run_config else ()
        return int(ask(folder, "run", str(app.resolve()), CONNECTION, *config)["run-id"])


def run_status(folder: Path, run_id: int) -> str:
    """Return ``pending``, ``starting``, ``running`` or ``finished:...``; errors as :func:`nodes`.

    What follows ``finished:`` is ``completed``, ``failed`` or ``stopped``.
    """
    return str(ask(folder, "ls", CONNECTION, "--run-id", str(run_id))["runs"][0]["status"])


def stop_run(folder: Path, run_id: int) -> None:
    """Stop a run; errors as :func:`nodes`."""
    ask(folder, "stop", str(run_id), CONNECTION)


def ask(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command of Flower's and return what it says; errors as :func:`nodes`."""
    check_up(folder)
    command = [program("flwr"), *arguments, "--format", "json"]
    try:
        done = subprocess.run(
            command,
            env=flower(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(folder, arguments, "no answer in time") from error
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise _refused(folder, arguments, done.stderr or done.stdout) from error
    if done.returncode or not told.get("success", False):
        raise _refused(folder, arguments, str(told.get("error-message", done.stderr)))
    return told


def check_up(folder: Path) -> None:
    """Refuse to go on while SuperLink does not run."""
    states = {state.name: state.state for state in services.status(folder)}
    if states.get(SUPERLINK) != "running":
        raise ConfigError(
            f"The server of '{folder}' is not up.",
            next_step=f"Start it: fedtl server up '{folder}'",
            code="server.down",
        )


def _refused(folder: Path, arguments: tuple[str, ...], said: str) -> TransportError:
    words = " ".join(said.split())[-500:]
    return TransportError(
        f"SuperLink did not carry out `flwr {' '.join(arguments[:2])}`: {words}",
        next_step=f"See '{services.log_file(folder, SUPERLINK)}'.",
        code="server.refused",
    )
