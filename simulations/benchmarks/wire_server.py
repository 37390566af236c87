"""The ServerApp of the benchmarks over a real SuperLink; a file names its job and takes its answer.

``nothing``: message phases as stock Flower sends them, with a head and nothing to do.
``rounds``: fedtl's rounds, training and evaluation in one phase.
"""

from __future__ import annotations

import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

CLASSES, WIDTH = 10, 1281
_NODES_SECONDS = 300
_PATIENCE_SECONDS = 120

app = ServerApp()


class _Enough(Exception):
    """No error: all wanted rounds are timed."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do the job that the run's config names, and write what it took."""
    job = json.loads(Path(str(context.run_config["run"])).read_text("utf-8"))
    seconds, lost = nothing(grid, job) if job["kind"] == "nothing" else rounds(grid, job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer = {"seconds": seconds, "lost": lost, "peak_bytes": peak}
    Path(job["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def nothing(grid: Grid, job: dict[str, Any]) -> tuple[list[float], int]:
    """Return the seconds of every phase after the first, in which nodes fetch the app.

    And how many replies did not come.
    """
    until = time.monotonic() + _NODES_SECONDS
    while len(nodes := list(grid.get_node_ids())) < job["nodes"] and time.monotonic() < until:
        time.sleep(0.2)
    seconds, lost = [], 0
    for _ in range(1 + job["phases"]):
        head = ArrayRecord([np.zeros((CLASSES, WIDTH), np.float32)])
        messages = [Message(RecordDict({"arrays": head}), node, "train") for node in nodes]
        began = time.perf_counter()
        replies = list(grid.send_and_receive(messages))
        seconds.append(time.perf_counter() - began)
        lost += job["nodes"] - sum(reply.has_content() for reply in replies)
    return seconds[1:], lost


def rounds(grid: Grid, job: dict[str, Any]) -> tuple[list[float], int]:
    """Return the seconds of every round, and how many answers were left out or did not come.

    Before the first round the sites are asked who they are.
    """
    from fedtl.rounds import RoundRecord, Settings, State, run
    from fedtl.rounds.record import Results
    from fedtl.rounds.sites import describe_sites
    from fedtl.strategies import make_strategy
    from fedtl.train.heads import initial_head
    from fedtl.transport.superlink import FollowedGrid
    from fedtl.transport.together import TogetherGrid

    followed = FollowedGrid(grid, patience=_PATIENCE_SECONDS)
    found = describe_sites(followed, at_least=job["nodes"], wait=_NODES_SECONDS)
    named = {node: site.name for node, site in found.items()}
    clock, lost = [time.perf_counter()], 0

    def after(state: State, record: RoundRecord) -> None:
        nonlocal lost
        clock.append(time.perf_counter())
        lost += job["nodes"] - len(record.releases)
        if state.round > job["phases"]:
            raise _Enough

    def evaluated(round_: int, results: Results) -> None:
        nonlocal lost
        lost += job["nodes"] - len(results.evaluations)

    # the head of a round 1 that is over is evaluated in round 2, and so on; the last round of all
    # would be evaluated in a phase of its own, and is not reached
    last = job["phases"] + 2
    try:
        run(
            TogetherGrid(followed),
            make_strategy("fedavg"),
            sites=named,
            start=State(1, initial_head("linear", WIDTH, CLASSES)),
            config=_config(job, last),
            settings=Settings(rounds=last, metrics=job["metrics"], together=True),
            on_round=after,
            on_evaluated=evaluated,
        )
    except _Enough:
        return [b - a for a, b in itertools.pairwise(clock)], lost
    raise RuntimeError("The rounds ended too early.")


def _config(job: dict[str, Any], rounds: int) -> Any:
    """Return what the sites are asked: one private full-batch step, and noised counts."""
    from fedtl.privacy.plan import Release, plan_for
    from fedtl.train.counts import METRICS_NORM
    from fedtl.train.task import TrainTask
    from fedtl.wire.messages import task_config

    gradients = Release(
        mechanism="gradients", clip_norm=0.5, count=rounds, public_size=float(job["rows"])
    )
    metrics = Release(mechanism="metrics", clip_norm=METRICS_NORM, count=rounds)
    told = () if job["metrics"] == "off" else (metrics,)
    plan = plan_for(gradients, *told, epsilon=8, delta=1e-5)
    return task_config(TrainTask(rounds=rounds, lr=1.0), plan)
