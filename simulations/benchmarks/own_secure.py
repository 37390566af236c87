"""What secure aggregation adds to a round: seconds, and bytes per site. Prints one line of JSON.

Every site holds 60 features of 1,280 and a constant, and a head of 10 classes: 12,810 values. A
round is one full-batch step; ``--secure`` hides it in a sum, with the sites' noise shared out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any

import numpy as np
import peer_flower

CLASSES, ROWS, WIDTH = 10, 60, 1281


def measure(*, sites: int, rounds: int, secure: bool) -> dict[str, Any]:
    """Return the median seconds of a round, and bytes to and from one site in it."""
    from own_heads import grid_of, rows_loader

    from fedtl.privacy.plan import Release, plan_for
    from fedtl.privacy.secagg import least_sites
    from fedtl.rounds import RoundRecord, Settings, State, run
    from fedtl.rounds.sites import describe_sites
    from fedtl.site.site import Site
    from fedtl.strategies import make_strategy
    from fedtl.train.heads import initial_head
    from fedtl.train.task import TrainTask
    from fedtl.transport.secure import THRESHOLD, SecureAggregationGrid
    from fedtl.transport.wrappers import MeteredGrid
    from fedtl.wire.messages import TRAIN, task_config

    random = np.random.default_rng(1)
    x = random.standard_normal((sites, ROWS, WIDTH), dtype=np.float32) / WIDTH**0.5
    y = np.arange(ROWS) % CLASSES
    classes = tuple(str(c) for c in range(CLASSES))
    everyone = [
        Site(f"site-{at:05d}", classes, WIDTH, "synthetic", rows_loader(rows, y), simulated=True)
        for at, rows in enumerate(x)
    ]
    metered = MeteredGrid(grid_of(everyone, "stacked"))
    named = {node: found.name for node, found in describe_sites(metered).items()}
    head = initial_head("linear", WIDTH, CLASSES)
    release = Release(
        mechanism="gradients",
        count=rounds,
        public_size=ROWS,
        honest_sites=least_sites(THRESHOLD, sites) if secure else 0,
    )
    clock, traffic = [time.perf_counter()], []

    def after(state: State, record: RoundRecord) -> None:
        clock.append(time.perf_counter())
        traffic.append(metered.traffic.take())

    shapes = {name: values.shape for name, values in head.items()}
    run(
        SecureAggregationGrid(metered, names=named, shapes={TRAIN: shapes}) if secure else metered,
        make_strategy("fedavg", {"fraction_evaluate": 0.0}),
        sites=named,
        start=State(0, head),
        config=task_config(
            TrainTask(rounds=rounds, lr=1.0), plan_for(release, epsilon=8, delta=1e-5), seed=1
        ),
        settings=Settings(rounds=rounds, evaluate_every=0),
        on_round=after,
    )
    node = next(iter(named))
    return {
        "sites": sites,
        "secure": secure,
        "seconds_per_round": statistics.median([b - a for a, b in itertools.pairwise(clock)][1:]),
        "bytes_up": traffic[-1].up[node],
        "bytes_down": traffic[-1].down[node],
    }


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--secure", action="store_true", help="hide the updates in their sum")
    arguments = vars(parser.parse_args())
    peer_flower.quieten()
    print(json.dumps(measure(**arguments)), flush=True)


if __name__ == "__main__":
    main()
