"""How a coordinator's server is: its services, certificate, database and disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedtl.launch import services
from fedtl.launch.coordinator.certificates import expires
from fedtl.launch.coordinator.config import Coordinator
from fedtl.launch.coordinator.up import METRICS, PROXY, RENEW, SUPERLINK
from fedtl.launch.doctor.places import look_at_disk
from fedtl.launch.service_states import service_finding, states_of
from fedtl.launch.services import ServiceState
from fedtl.report.words import size
from fedtl.types import Finding


@dataclass(frozen=True, slots=True)
class ServerState:
    """What ``fedtl server status`` shows.

    Attributes
    ----------
    services : tuple of ServiceState
        SuperLink, the proxy, and the metrics where somebody asked for them.
    expires : datetime
        Until when the certificate holds that sites see.
    database_bytes, free_bytes : int
        Size of SuperLink's database; free space on the disk of the folder.
    """

    coordinator: Coordinator
    services: tuple[ServiceState, ...]
    expires: datetime
    database_bytes: int
    free_bytes: int

    @property
    def is_up(self) -> bool:
        """Whether every service runs."""
        return all(service.state == "running" for service in self.services)

    @property
    def days_left(self) -> int:
        """Whole days until the certificate ends; below zero if it has."""
        return (self.expires - datetime.now(UTC)).days


def server_state(coordinator: Coordinator) -> ServerState:
    """Look at a coordinator's server.

    Raises
    ------
    ConfigError
        The certificate is missing.
    """
    folder = coordinator.folder
    more = (state.name for state in services.status(folder) if state.name == METRICS)
    return ServerState(
        coordinator,
        states_of(folder, (SUPERLINK, PROXY, *more)),
        expires(coordinator.certificate),
        _size_of(coordinator.database),
        shutil.disk_usage(folder).free,
    )


def findings(state: ServerState) -> Iterator[Finding]:
    """Yield what is worth knowing of a server, each fault with its cure."""
    folder = state.coordinator.folder
    for service in state.services:
        yield service_finding(folder, service, "fedtl server up")
    yield _certificate(state)
    yield Finding("database", "ok", size(state.database_bytes))
    yield look_at_disk(folder, "database, runs and logs")


def _certificate(state: ServerState) -> Finding:
    days, own = state.days_left, state.coordinator.has_own_certificate
    what = f"holds until {state.expires:%Y-%m-%d}, {days} days"
    if days >= RENEW.days:
        return Finding("certificate", "ok", what)
    cure = "Run `fedtl server renew`" + ("." if own else " once its files are replaced.")
    if days < 0:
        return Finding("certificate", "broken", f"ended on {state.expires:%Y-%m-%d}", cure)
    return Finding("certificate", "note", what, cure)


def _size_of(database: Path) -> int:
    parts = database.parent.glob(f"{database.name}*")
    return sum(part.stat().st_size for part in parts)
