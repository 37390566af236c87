"""How fedtl grows: peak memory on large features, and time per round over many sites.

``memory`` trains 10 sites on 60,000 x 2,208 features that are memory-mapped from a file, in full
batches, and prints the peak memory of its own fresh process; ``write`` makes the file first, in
another process. ``cohort`` prints the seconds of a round in which 20 of many simulated sites take
part, their features at hand. Each prints one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peer_flower

CLASSES, SITES, BLOCK = 10, 10, 4096
COHORT, COHORT_ROWS, COHORT_WIDTH = 20, 20, 64


def write(path: Path, *, rows: int, width: int) -> dict[str, Any]:
    """Write seeded features of unit length, and labels that depend on them, block by block."""
    random = np.random.default_rng(1)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
    for start in range(0, rows, BLOCK):
        part = random.standard_normal((min(BLOCK, rows - start), width), dtype=np.float32)
        x[start : start + BLOCK] = part / np.linalg.norm(part, axis=1, keepdims=True)
    x.flush()
    return {"rows": rows, "width": width, "bytes": x.nbytes}


def memory(path: Path, *, rounds: int) -> dict[str, Any]:
    """Train on the mapped file, one full-batch step a round; return peak memory and seconds."""
    x = np.load(path, mmap_mode="r", allow_pickle=False)
    y = np.arange(len(x)) % CLASSES
    share = len(x) // SITES
    slices = [slice(at * share, (at + 1) * share) for at in range(SITES)]
    seconds = _rounds([(x[s], y[s]) for s in slices], rounds=rounds, cohort=0)
    return {
        "peak_gb": peak_bytes() / 1e9,
        "rows": len(x),
        "width": x.shape[1],
        "sites": SITES,
        "rounds": rounds,
        "seconds": sum(seconds),
    }


def peak_bytes() -> int:
    """Return the peak resident memory of this process alone.

    On Linux ``ru_maxrss`` also counts the process that started this one, so the kernel's own
    account of the present address space is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(part for part in status.read_text().splitlines() if part.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def cohort(*, sites: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a round of 20 out of ``sites``; the first round warms up."""
    random = np.random.default_rng(1)
    x = random.standard_normal((sites, COHORT_ROWS, COHORT_WIDTH), dtype=np.float32)
    y = np.arange(COHORT_ROWS) % CLASSES
    seconds = _rounds([(rows, y) for rows in x], rounds=rounds + 1, cohort=COHORT)[1:]
    return {
        "seconds_per_round": statistics.median(seconds),
        "sites": sites,
        "sampled": COHORT,
        "rounds": rounds,
    }


def _rounds(data: list[tuple[Any, Any]], *, rounds: int, cohort: int) -> list[float]:
    """Run rounds of FedAvg with full batches; return each one's seconds."""
    from own_heads import grid_of, rows_loader

    from fedtl.rounds import Settings, State, run
    from fedtl.rounds.sites import describe_sites
    from fedtl.site.site import Site
    from fedtl.strategies import make_strategy
    from fedtl.train.heads import initial_head
    from fedtl.train.task import TrainTask
    from fedtl.wire.messages import task_config

    classes, width = tuple(str(c) for c in range(CLASSES)), data[0][0].shape[1]
    sites = [
        Site(f"site-{at:05d}", classes, width, "synthetic", rows_loader(*rows), simulated=True)
        for at, rows in enumerate(data)
    ]
    for site in sites:
        _ = site.examples
    grid = grid_of(sites, "stacked")
    named = {node: found.name for node, found in describe_sites(grid).items()}
    clock = [time.perf_counter()]
    run(
        grid,
        make_strategy("fedavg", {"fraction_evaluate": 0.0}),
        sites=named,
        start=State(0, initial_head("linear", width, CLASSES)),
        config=task_config(TrainTask(rounds=rounds, lr=1.0), None, seed=1),
        settings=Settings(rounds=rounds, sites_per_round=cohort, evaluate_every=0),
        on_round=lambda state, record: clock.append(time.perf_counter()),
    )
    return [end - begin for begin, end in itertools.pairwise(clock)]


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "write": write,
    "memory": memory,
    "cohort": cohort,
}


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    made = modes.add_parser("write", help="write the features of `memory`")
    made.add_argument("path", type=Path)
    made.add_argument("--rows", type=int, default=60_000, help="default: %(default)s")
    made.add_argument("--width", type=int, default=2208, help="default: %(default)s")
    held = modes.add_parser("memory", help="peak memory on mapped features")
    held.add_argument("path", type=Path)
    held.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    many = modes.add_parser("cohort", help="seconds per round with many sites")
    many.add_argument("--sites", type=int, default=10_000, help="default: %(default)s")
    many.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    arguments = vars(parser.parse_args())
    peer_flower.quieten()
    print(json.dumps(MODES[arguments.pop("mode")](**arguments)), flush=True)


if __name__ == "__main__":
    main()
