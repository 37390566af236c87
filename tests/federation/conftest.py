"""One federation for all tests here: a coordinator, sites beside it, and a cable to others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cable import Cable
from looked import left_behind
from machines import another_machine, free_port
from trial import Trial

from fedtl.launch import services
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.up import up


@pytest.fixture(scope="session")
def cable() -> Iterator[Cable]:
    """Make a network namespace with one cable to here."""
    with another_machine("faults", 214) as machine:
        yield Cable(machine)


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
