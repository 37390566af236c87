"""What every test gets: a home, fixed threads and seeds, and a look at what it leaves behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# before anything imports torch or Flower; child processes inherit them
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"

# a background job of a shell ignores Ctrl-C, and so would its children: tests that send one fail
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import flwr.serverapp  # noqa: F401  it sets an environment variable when it is first imported
import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("grid_law", "toys", "replies", "slow", "planted")

settings.register_profile(
    "fedtl",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("fedtl")


_LONG = (
    "federation/",
    "deploy/test_deploy_federation.py",
    "simulations/test_benchmarks_wire.py",
)
"""What ``make longtest`` runs, and ``make test`` does not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests, so that each of the two commands ends in good time."""
    tests = f"{Path(__file__).parent}/"
    for item in items:
        if str(item.path).removeprefix(tests).startswith(_LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", autouse=True)
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Point FEDTL_HOME at a folder that the tests of this session share: features stay warm."""
    before, home = os.environ.get("FEDTL_HOME"), tmp_path_factory.mktemp("shared-home")
    os.environ["FEDTL_HOME"] = str(home)
    yield home
    os.environ.pop("FEDTL_HOME")
    if before is not None:
        os.environ["FEDTL_HOME"] = before


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point FEDTL_HOME at an empty folder for one test."""
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "fresh-home"))
    return tmp_path / "fresh-home"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads, child processes or environment variables behind."""
    before = _threads(), _children(), _environment()
    yield
    left = {t.name for t in _threads() - before[0] if _still_runs(t)}
    assert not left, f"threads left behind: {sorted(left)}"
    assert not (_children() - before[1]), "child processes left behind"
    after = _environment()
    changed = {k for k in after.keys() | before[2].keys() if after.get(k) != before[2].get(k)}
    assert not changed, f"environment variables changed: {sorted(changed)}"


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)}


def _still_runs(thread: threading.Thread) -> bool:
    thread.join(timeout=2)  # executors shut down without waiting end a moment later
    return thread.is_alive()


def _children() -> set[int]:
    """Return the ids of living child processes; empty where the system does not tell."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # threads and children may just end
            for pid in task.read_text().split():
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                found |= {int(pid)} if state != "Z" else set()
    return found


# set by pytest itself, and by libraries when they are first imported
_OWN = {
    "PYTEST_CURRENT_TEST",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TORCHINDUCTOR_CACHE_DIR",
}


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in _OWN}
