"""A federated run as its coordinator starts and follows it; the rounds go on without him."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from fedtl.errors import ConfigError, FedtlError, TransportError
from fedtl.home import write_atomic
from fedtl.launch.coordinator import link
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.flower_app import write_app
from fedtl.launch.run_folder import recipe_of
from fedtl.launch.watch import FILE, RunProgress, read_progress

_FILE = "flower.json"
_ENDS = ("finished", "failed", "stopped")
_AGAIN = "The run's process was gone; it was handed in again."
_PAUSE, _BEGINS_SECONDS, _LEAVES_SECONDS = 0.5, 90.0, 10.0
_MOST_DEATHS = 5
"""Times that a ServerApp may die without finishing a round before the run is given up."""


@dataclass
class Remote:
    """A run at a coordinator.

    Attributes
    ----------
    coordinator : Path
        Its folder.
    folder : Path
        The run folder, with a recipe.
    """

    coordinator: Path
    folder: Path
    _submitted: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Hand the run, or what is left of it, to SuperLink.

        Raises
        ------
        FedtlError
            The server is not up, or the run goes on already (``run.alive``).
        """
        recipe_of(self.folder)
        if self.alive():
            raise ConfigError(
                f"The run '{self.folder}' goes on already.",
                next_step="Follow it with --resume, or stop it with --stop.",
                code="run.alive",
            )
        self._stop_old()
        self._submitted = time.time()
        app = write_app(read_server(self.coordinator).folder / "app")
        run_id = link.submit(self.coordinator, app, {"run": str(self.folder.resolve())})
        self._keep({"run_id": run_id})

    def alive(self) -> bool:
        """Say whether a process tells this run's story now."""
        told = read_progress(self.folder)
        return told is not None and told.state not in _ENDS and _is_alive(told)

    def stop(self) -> None:
        """Stop the run; every finished round is kept."""
        self._keep({**self._kept(), "stop": True})
        self._stop_old()
        told = read_progress(self.folder)
        if told is not None and told.state not in _ENDS and _is_alive(told):
            with suppress(psutil.Error):
                psutil.Process(told.pid).terminate()

    def follow(self) -> Iterator[RunProgress]:
        """Yield where the run stands, twice a second, to its end.

        Where the ServerApp dies, or SuperLink with it, the run is handed in again, unless somebody
        has stopped it.

        Raises
        ------
        FedtlError
            The run failed, with what it said; or died several times in the same round.
        """
        deaths, at = 0, -1
        while True:
            told = read_progress(self.folder)
            fresh = told is not None and told.updated >= self._submitted
            if told is not None and fresh:
                yield told
                if told.state == "finished":
                    return
                if told.state == "failed" or (told.state == "stopped" and "stop" in self._kept()):
                    raise TransportError(told.said, code="run.failed")
            if self._is_dead(told if fresh else None):
                deaths = deaths + 1 if told and told.round == at else 1
                at = told.round if told else 0
                self._again(told, deaths)
                yield replace(told or RunProgress(), said=_AGAIN)
            time.sleep(_PAUSE)

    def _is_dead(self, told: RunProgress | None) -> bool:
        if told is not None:
            return not _is_alive(told)
        return time.time() - self._submitted > _BEGINS_SECONDS

    def _again(self, told: RunProgress | None, deaths: int) -> None:
        """Hand the run in again, as soon as the server is up."""
        if deaths > _MOST_DEATHS:
            raise TransportError(
                f"The run's process ended {deaths} times in round {told.round + 1 if told else 1}.",
                next_step="See `fedtl server log superlink`; then go on with --resume.",
                code="run.died",
            )
        while True:
            try:
                self.start()
                return
            except (ConfigError, TransportError) as error:
                if error.code not in ("server.down", "server.refused"):
                    raise
                if time.time() - self._submitted > _BEGINS_SECONDS:
                    raise
                time.sleep(_PAUSE)

    def _stop_old(self) -> None:
        """Tell SuperLink that an earlier attempt is over, if it still thinks otherwise."""
        with suppress(FedtlError, ValueError, KeyError, TypeError):
            run_id = int(self._kept()["run_id"])
            if not link.run_status(self.coordinator, run_id).startswith("finished"):
                link.stop_run(self.coordinator, run_id)

    def _keep(self, about: dict[str, Any]) -> None:
        text = json.dumps(about).encode()
        write_atomic(self.folder / _FILE, lambda file: file.write(text))

    def _kept(self) -> dict[str, Any]:
        """Return what is kept of the last attempt: its id, and whether somebody stopped it."""
        with suppress(OSError, ValueError, TypeError):
            return dict(json.loads((self.folder / _FILE).read_text("utf-8")))
        return {}


def _is_alive(told: RunProgress) -> bool:
    """Say whether the process that wrote this is there still; Flower leaves dead ones unburied."""
    try:
        process = psutil.Process(told.pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and process.create_time() <= told.updated
    except psutil.Error:
        return False


def end_runs(coordinator: Path) -> None:
    """Let the processes of a coordinator's runs end by themselves before its server does.

    Flower kills them with the server; asked before, each writes where it stands and lets go of its
    folder.
    """
    told = [read_progress(file.parent) for file in (coordinator / "runs").glob(f"*/{FILE}")]
    alive = [one for one in told if one and one.state not in _ENDS and _is_alive(one)]
    for one in alive:
        with suppress(psutil.Error):
            psutil.Process(one.pid).terminate()
    until = time.monotonic() + _LEAVES_SECONDS
    while any(map(_is_alive, alive)) and time.monotonic() < until:
        time.sleep(_PAUSE)
