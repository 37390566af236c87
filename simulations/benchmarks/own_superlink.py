"""What a SuperLink and a run's ServerApp need with ever more nodes: seconds and memory.

Real SuperLink, real ServerApp and fedtl's rounds with a head of 51 kB. The nodes are threads of
this process (``fleet_nodes.py``): they look for messages as often as a SuperNode does, and answer
at once with an update of the right shape. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from flower_link import app_folder, peak_bytes, stoppable, superlink


def measure(*, nodes: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a round, and peaks of memory."""
    from fleet_nodes import fleet
    from wire_server import CLASSES, WIDTH

    from fedtl import __version__
    from fedtl.types import Description

    classes = tuple(str(c) for c in range(CLASSES))
    description = Description("site", classes, "synthetic", WIDTH, __version__)
    with tempfile.TemporaryDirectory(prefix="fedtl-") as work, superlink(Path(work)) as link:
        app = app_folder(link.folder / "fedtl")
        job = {"kind": "rounds", "metrics": "off", "nodes": nodes, "rows": 600, "phases": rounds}
        idle = link.process.memory_info().rss
        with fleet(link.address, nodes, description) as there:
            told = link.run(app, job)
        return {
            "nodes": nodes,
            "seconds_per_round": statistics.median(told["seconds"]),
            "slowest_seconds": max(told["seconds"]),
            "superlink_idle_gb": idle / 1e9,
            "superlink_peak_gb": peak_bytes(link.process) / 1e9,
            "server_app_peak_gb": told["peak_bytes"] / 1e9,
            "superlink_errors": there.errors(),
            "lost": told["lost"],
        }


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    stoppable()
    print(json.dumps(measure(**vars(arguments))), flush=True)


if __name__ == "__main__":
    main()
