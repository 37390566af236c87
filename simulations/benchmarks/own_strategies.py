"""What strategies cost on stacked sites. Prints one line of JSON.

``drift`` trains one strategy and prints the median seconds of a round: 100 sites, 60 features of
1,280 each, 10 classes, 10 full-batch steps. ``statistics`` prints the seconds of FED3R's one round
over 100 sites that share 60,000 rows of 1,280, and those of one pooled Gram product of all rows in
the same process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import peer_flower

CLASSES, WIDTH = 10, 1280
OPTIONS: dict[str, dict[str, Any]] = {
    "fedprox": {"proximal_mu": 0.01},
    "feddyn": {"alpha": 0.01},
}


def drift(*, strategy: str, sites: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a round of a strategy; the first round warms up."""
    from fedtl.train.task import TrainTask

    task = TrainTask(rounds=rounds + 1, steps=10, lr=0.5)
    seconds = _rounds(strategy, task, sites=sites, rows=60)
    return {"strategy": strategy, "seconds_per_round": statistics.median(seconds[1:])}


def gram(*, sites: int, rows: int) -> dict[str, Any]:
    """Return the seconds of FED3R over sites, and of the pooled products it is made of."""
    from fedtl.train.task import TrainTask

    data = _data(sites, rows // sites)
    pooled = np.concatenate([x for x, _ in data]).astype(np.float64)
    begun = time.perf_counter()
    np.matmul(pooled.T, pooled)
    product = time.perf_counter() - begun
    del pooled
    (seconds,) = _rounds("fed3r", TrainTask(rounds=1), data=data)
    return {"seconds": seconds, "product_seconds": product, "sites": sites, "rows": rows}


def _data(sites: int, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random, y = np.random.default_rng(1), np.arange(rows) % CLASSES
    drawn = (random.standard_normal((rows, WIDTH), dtype=np.float32) for _ in range(sites))
    return [(x / np.linalg.norm(x, axis=1, keepdims=True), y) for x in drawn]


def _rounds(
    name: str,
    task: Any,
    *,
    sites: int = 0,
    rows: int = 0,
    data: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> list[float]:
    """Run a strategy and return each round's seconds."""
    from own_heads import grid_of, rows_loader

    from fedtl.rounds import Settings, State, run
    from fedtl.rounds.sites import describe_sites
    from fedtl.site.site import Site
    from fedtl.strategies import make_strategy
    from fedtl.train.heads import initial_head
    from fedtl.wire.messages import task_config

    classes = tuple(str(c) for c in range(CLASSES))
    there = [
        Site(f"site-{at:05d}", classes, WIDTH, "synthetic", rows_loader(*part), simulated=True)
        for at, part in enumerate(data or _data(sites, rows))
    ]
    for site in there:
        _ = site.examples
    grid = grid_of(there, "stacked")
    named = {node: found.name for node, found in describe_sites(grid).items()}
    clock = [time.perf_counter()]
    run(
        grid,
        make_strategy(name, OPTIONS.get(name)),
        sites=named,
        start=State(0, initial_head("linear", WIDTH, CLASSES)),
        config=task_config(task, None, seed=1),
        settings=Settings(rounds=task.rounds, evaluate_every=0, metrics="off"),
        on_round=lambda state, record: clock.append(time.perf_counter()),
    )
    return [end - begin for begin, end in itertools.pairwise(clock)]


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = parser.add_subparsers(dest="mode", required=True)
    many = known.add_parser("drift", help="seconds of a round of a strategy")
    many.add_argument("strategy")
    many.add_argument("--sites", type=int, default=100, help="default: %(default)s")
    many.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    once = known.add_parser("statistics", help="FED3R beside one pooled Gram product")
    once.add_argument("--sites", type=int, default=100, help="default: %(default)s")
    once.add_argument("--rows", type=int, default=60_000, help="default: %(default)s")
    arguments = vars(parser.parse_args())
    modes: dict[str, Callable[..., dict[str, Any]]] = {"drift": drift, "statistics": gram}
    measure = modes[arguments.pop("mode")]
    peer_flower.quieten()
    print(json.dumps(measure(**arguments)), flush=True)


if __name__ == "__main__":
    main()
