"""What the coordinator's server tells Prometheus: a small service of its own.

It reads files, supervisord and Flower's own list of nodes, never SuperLink's database. Started by
``fedtl server up`` as ``python -m fedtl.launch.coordinator.metrics FOLDER PORT``.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fedtl.errors import FedtlError
from fedtl.launch.coordinator.config import RUNS, Coordinator, read_server
from fedtl.launch.coordinator.link import nodes
from fedtl.launch.coordinator.sites import enrolled
from fedtl.launch.coordinator.state import server_state
from fedtl.launch.metrics import exposed

_AGAIN_SECONDS = 60.0
"""Flower's list of nodes costs a process of a second or two."""
_LOOK_SECONDS = 0.3


class ServerMetrics(Collector):
    """Services, certificate, enrolled and connected sites, and the newest run.

    Parameters
    ----------
    coordinator : Coordinator
        Its folder.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._online: frozenset[str] | None = None
        self._asked = -_AGAIN_SECONDS

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now; what cannot be read is left out."""
        with suppress(FedtlError, OSError):
            yield from self._server()
        with suppress(FedtlError):
            yield from self._sites()
        with suppress(OSError, ValueError, KeyError, TypeError):
            newest = max((self._coordinator.folder / RUNS).glob("*/progress.json"), key=_written)
            yield from _run(newest.parent, json.loads(newest.read_text("utf-8")))

    def _server(self) -> Iterator[Metric]:
        state = server_state(self._coordinator)
        up = GaugeMetricFamily("fedtl_service_up", "1 if it runs", labels=("service",))
        for service in state.services:
            up.add_metric((service.name,), float(service.state == "running"))
        yield up
        for name, what, value in (
            ("certificate_expires", "When the sites' certificate ends", state.expires.timestamp()),
            ("database_bytes", "Size of SuperLink's database", state.database_bytes),
            ("disk_free_bytes", "Free on the disk of the folder", state.free_bytes),
        ):
            yield GaugeMetricFamily(f"fedtl_server_{name}", what, value=value)

    def _sites(self) -> Iterator[Metric]:
        names = [site.name for site in enrolled(self._coordinator.folder)]
        yield GaugeMetricFamily("fedtl_server_sites_enrolled", "Enrolled", value=len(names))
        online = self._connected()
        if online is None:
            return
        here = GaugeMetricFamily("fedtl_server_site_online", "1 if connected", labels=("site",))
        for name in names:
            here.add_metric((name,), float(name in online))
        yield here

    def _connected(self) -> frozenset[str] | None:
        """Return who is connected, asked once a minute; None where SuperLink does not say."""
        if time.monotonic() - self._asked >= _AGAIN_SECONDS:
            self._asked, self._online = time.monotonic(), None
            with suppress(FedtlError):
                found = nodes(self._coordinator.folder).values()
                self._online = frozenset(node.site for node in found if node.online)
        return self._online


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _run(folder: Path, told: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield what a run's files say: they are read as JSON, because their readers load torch."""
    name = folder.name
    state = GaugeMetricFamily("fedtl_run_state", "1 for its state", labels=("run", "state"))
    state.add_metric((name, told["state"]), 1)
    yield state
    for key, what in (
        ("round", "Finished rounds"),
        ("rounds", "Rounds of the whole run"),
        ("updated", "When the run last told of itself"),
    ):
        gauge = GaugeMetricFamily(f"fedtl_run_{key}", what, labels=("run",))
        gauge.add_metric((name,), told[key])
        yield gauge
    n_bytes = CounterMetricFamily(
        "fedtl_run_bytes", "Arrays between server and site", labels=("run", "site", "direction")
    )
    failing = GaugeMetricFamily(
        "fedtl_run_site_failing", "1 for a site's present failure", labels=("run", "site", "code")
    )
    for site in told["sites"]:
        n_bytes.add_metric((name, site["name"], "down"), site["down"])
        n_bytes.add_metric((name, site["name"], "up"), site["up"])
        if site["detail"]:
            failing.add_metric((name, site["name"], site["detail"]), 1)
    yield from (n_bytes, failing, _failures(folder))


def _failures(folder: Path) -> Metric:
    counted: Counter[tuple[str, str]] = Counter()
    with suppress(OSError):
        for line in (folder / "checkpoint" / "history.jsonl").read_text("utf-8").splitlines():
            counted.update(json.loads(line)["failures"].items())
    failures = CounterMetricFamily(
        "fedtl_run_site_failures", "Updates not used", labels=("run", "site", "code")
    )
    for (site, code), n in counted.items():
        failures.add_metric((folder.name, site, code), n)
    return failures


def main(folder: str, port: str) -> None:
    """Serve until SIGTERM."""
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: came.append(number))
    with exposed(ServerMetrics(read_server(Path(folder))), int(port)):
        while not came:
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
