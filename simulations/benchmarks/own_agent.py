"""How long a site's agent takes to answer a training message, asked over its real socket.

6,000 rows of 1,280 features and a bias, 10 classes: one epoch of DP-SGD in Poisson batches, every
time from another head. Charge, noise and stored reply are in the time. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from flower_link import stoppable
from own_wire import agents
from serve_agents import CLASSES, WIDTH, socket_of

from fedtl.errors import TransportError

DELTA, EPSILON, CLIP_NORM = 1e-5, 8.0, 0.5


def measure(*, rows: int, batch: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of an answer; the first, for which nothing is warm, by itself."""
    with tempfile.TemporaryDirectory(prefix="fedtl-") as work:
        folder = Path(work)
        with agents(folder, 1, rows):
            seconds = ask(socket_of(folder, 0), rows=rows, batch=batch, rounds=rounds)
    return {
        "rows": rows,
        "batch": batch,
        "steps": rows // batch,
        "seconds_per_answer": statistics.median(seconds[1:]),
        "slowest_seconds": max(seconds[1:]),
        "first_seconds": seconds[0],
    }


def ask(socket: Path, *, rows: int, batch: int, rounds: int) -> list[float]:
    """Return the seconds of every answer, and check that each is a head of its own."""
    from flwr.app import Message, RecordDict

    from fedtl.agent.client import AgentClient
    from fedtl.privacy.plan import Release, plan_for
    from fedtl.train.task import TrainTask
    from fedtl.transport._identity import ensure_identity
    from fedtl.wire.arrays import pack
    from fedtl.wire.messages import TRAIN, task_config

    ensure_identity()
    steps = rows // batch
    release = Release(
        mechanism="gradients",
        clip_norm=CLIP_NORM,
        count=rounds * steps,
        sampling_rate=batch / rows,
        public_size=float(rows),
    )
    task = TrainTask(rounds=rounds, steps=steps, sampling="poisson", batch_size=batch, lr=1.0)
    config = task_config(task, plan_for(release, epsilon=EPSILON, delta=DELTA))
    random, agent, seconds = np.random.default_rng(5), AgentClient(socket), []
    for round_ in range(1, rounds + 1):
        head = {"weight": random.normal(0, 0.01, (CLASSES, WIDTH)).astype(np.float32)}
        config["server-round"] = round_
        content = RecordDict({"arrays": pack(head), "config": config})
        began = time.perf_counter()
        reply = agent.ask(Message(content, 1, TRAIN), 7)
        seconds.append(time.perf_counter() - began)
        if reply.has_error():
            raise TransportError(f"The agent refused: {reply.error.reason}")
    return seconds


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=256, help="expected; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    arguments = parser.parse_args()
    stoppable()
    print(json.dumps(measure(**vars(arguments))), flush=True)


if __name__ == "__main__":
    main()
