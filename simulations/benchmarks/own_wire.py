"""A fedtl round over a real SuperLink, beside a message phase of Flower's in which nothing is done.

One SuperLink on loopback and as many SuperNodes as ``--nodes``, each a process, take turns at two
Flower apps: a stock one that returns a head of 51 kB as it came, and fedtl's, whose thin ClientApp
asks the site's agent (600 features of 1,281, a private step, a noised evaluation, a ledger). The
agents share one process. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from flower_link import (
    HERE,
    Link,
    app_folder,
    app_seconds,
    running,
    stoppable,
    superlink,
    supernodes,
)
from serve_agents import ANSWERS, READY, socket_of

from fedtl.errors import TransportError

CLIENT = HERE.parents[1] / "client"
_STARTS, _READY_SECONDS = 3, 120
_IMPORTS = """
import sys, time
began = time.perf_counter()
import flwr.supernode.cli.flwr_clientapp
flower = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import app
print(flower - began, time.perf_counter() - flower)
"""


def measure(*, nodes: int, rows: int, phases: int, alternations: int) -> dict[str, Any]:
    """Return the seconds of both, of every alternation, and where those of a round go."""
    with tempfile.TemporaryDirectory(prefix="fedtl-") as work:
        folder = Path(work)
        with agents(folder, nodes, rows), superlink(folder) as link:
            configs = [f'agent="{socket_of(folder, at)}"' for at in range(nodes)]
            with supernodes(link, configs) as started:
                turns = _Turns(link, started, nodes=nodes, rows=rows, phases=phases)
                for turn in range(alternations):
                    turns.take(first="nothing" if turn % 2 == 0 else "rounds")
        return {"nodes": nodes, **turns.figures(), **agent_seconds(folder), **starts()}


class _Turns:
    """Both apps, and what they took turn by turn."""

    def __init__(
        self, link: Link, started: Sequence[psutil.Process], *, nodes: int, rows: int, phases: int
    ) -> None:
        self._link, self._started = link, started
        self._nodes = nodes
        self._job = {"nodes": nodes, "rows": rows, "phases": phases, "metrics": "noised"}
        stock = HERE / "peer_flower_nothing_client.py"
        self._apps = {
            "nothing": app_folder(link.folder / "stock", client=stock),
            "rounds": app_folder(link.folder / "fedtl"),
        }
        self._seconds: dict[str, list[list[float]]] = {"nothing": [], "rounds": []}
        self._cpu: dict[str, list[float]] = {"nothing": [], "rounds": []}

    def take(self, *, first: str) -> None:
        """Run both, one after the other."""
        for kind in sorted(self._apps, key=lambda kind: kind != first):
            before = app_seconds(self._started)
            told = self._link.run(self._apps[kind], {**self._job, "kind": kind})
            if told["lost"]:
                raise TransportError(f"{told['lost']} answers did not come: nothing is comparable.")
            # a round 0 makes the nodes fetch the app, or say who they are
            messages = self._nodes * (len(told["seconds"]) + 1)
            self._seconds[kind].append(told["seconds"])
            self._cpu[kind].append((app_seconds(self._started) - before) / messages)

    def figures(self) -> dict[str, Any]:
        """Return the medians of every alternation, their ratios, and processor time by message."""
        idle, busy = ([statistics.median(s) for s in turns] for turns in self._seconds.values())
        return {
            "nothing_seconds": idle,
            "round_seconds": busy,
            "ratios": [b / a for a, b in zip(idle, busy, strict=True)],
            "nothing_cpu_seconds": statistics.median(self._cpu["nothing"]),
            "round_cpu_seconds": statistics.median(self._cpu["rounds"]),
        }


@contextmanager
def agents(folder: Path, sites: int, rows: int) -> Iterator[None]:
    """Serve the sites until the block is left."""
    script = (sys.executable, str(HERE / "serve_agents.py"), str(folder))
    command = (*script, "--sites", str(sites), "--rows", str(rows))
    with running(folder, "agents", command):
        until = time.monotonic() + _READY_SECONDS
        while not (folder / READY).exists() and time.monotonic() < until:
            time.sleep(0.1)
        if not (folder / READY).exists():
            raise TransportError(
                "The agents do not come up.", next_step="Start serve_agents.py alone."
            )
        yield


def agent_seconds(folder: Path) -> dict[str, float]:
    """Return the median seconds of an answer as the agents logged them."""
    lines = (folder / ANSWERS).read_text("utf-8").splitlines()
    told = [answer for answer in map(json.loads, lines) if answer["type"] == "train"]
    refused = [answer["code"] for answer in told if answer["code"]]
    if refused or not told:
        raise TransportError(f"The agents refused: {sorted(set(refused))}")
    return {"agent_seconds": statistics.median(answer["seconds"] for answer in told)}


def starts() -> dict[str, float]:
    """Return what a ClientApp's process takes before it does anything, alone on the machine."""
    runs = []
    for _ in range(_STARTS):
        command = (sys.executable, "-c", _IMPORTS, str(CLIENT))
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - began
        flower, own = map(float, done.stdout.split()[-2:])
        runs.append((whole, flower, own))
    whole, flower, own = map(statistics.median, zip(*runs, strict=True))
    return {"start_seconds": whole, "flower_imports_seconds": flower, "own_imports_seconds": own}


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--phases", type=int, default=3, help="timed a turn; default: %(default)s")
    parser.add_argument("--alternations", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    stoppable()
    print(json.dumps(measure(**vars(arguments))), flush=True)


if __name__ == "__main__":
    main()
