"""What is worth saying of services: those that run, and those that should."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtl.launch import services
from fedtl.launch.services import ServiceState
from fedtl.report.words import duration
from fedtl.types import Finding

_STOPPED = "stopped"


def states_of(folder: Path, names: Sequence[str]) -> tuple[ServiceState, ...]:
    """Return the state of each named service of a folder, also where none runs."""
    known = {state.name: state for state in services.status(folder)}
    return tuple(known.get(name) or ServiceState(name, _STOPPED, 0, 0.0, "") for name in names)


def service_finding(folder: Path, service: ServiceState, start: str) -> Finding:
    """Return what a service does, and how to mend it.

    Parameters
    ----------
    start : str
        The command that starts it.
    """
    if service.state == "running":
        return Finding(service.name, "ok", f"running for {duration(service.seconds)}")
    if service.state == _STOPPED:
        return Finding(service.name, "broken", _STOPPED, f"Start it: {start} '{folder}'")
    what = f"{service.state}: {service.detail}" if service.detail else service.state
    return Finding(service.name, "broken", what, f"See '{services.log_file(folder, service.name)}'")
