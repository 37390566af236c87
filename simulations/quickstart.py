"""The whole story in one file: copy it, change the strategy, run it.

    python simulations/quickstart.py

Five sites hold real scans of handwritten digits that they cannot pool. Each turns its scans into
features of a frozen ImageNet backbone once, trains a linear head on them under differential
privacy, and sends only the head. A strategy, here twenty lines of your own, combines the heads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fedtl.apps.client import make_client_app
from fedtl.backbone import resolve
from fedtl.data import open_data, partition
from fedtl.features import extract, prepare
from fedtl.privacy.plan import Release, plan_for
from fedtl.rounds import RoundRecord, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.site import Site
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import task_config

SEED = 1
logging.getLogger("flwr").setLevel(logging.WARNING)


# 1. A strategy is a plain Flower Strategy. This one averages the heads and adds server momentum.
class Momentum(FedAvg):
    """Server momentum (Hsu et al. 2019, arXiv:1909.06335): v <- m v + (average - head)."""

    def __init__(self, momentum: float = 0.5) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.momentum = momentum
        self.head = np.zeros(0, np.float32)
        self.velocity: np.ndarray | float = 0.0

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        """Remember the head that is sent out."""
        self.head = unpack(arrays)["weight"]
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, then follow the velocity."""
        average, metrics = super().aggregate_train(server_round, replies)
        if average is None:
            return None, metrics
        step = unpack(average)["weight"] - self.head
        self.velocity = self.momentum * self.velocity + step
        return pack({"weight": (self.head + self.velocity).astype(np.float32)}), metrics


# 2. Data: real scans, held out by hash, spread over five sites with label skew.
digits = open_data("digits")
sites_rows = partition(
    digits.labels, digits.test, kind="dirichlet", sites=5, alpha=0.5, seed=SEED, min_examples=10
)

# 3. Backbone and features: extracted once, then memory-mapped from the cache.
card = resolve("tf_efficientnet_lite0", image_size=64)
features = extract(digits, card)


def open_site(at: int) -> Site:
    """Make the site that owns one part of the data."""
    rows = sites_rows[at]

    def load() -> tuple[Examples, Examples]:
        parts = []
        for chosen in (rows.train, rows.test):
            x = torch.from_numpy(np.array(prepare(features, chosen).x))
            parts.append(Examples.of(x, torch.from_numpy(digits.labels[chosen])))
        return parts[0], parts[1]

    return Site(
        name=rows.name,
        classes=digits.classes,
        width=card.width + 1,
        backbone=card.digest(),
        load=load,
        simulated=True,
    )


all_sites = [open_site(at) for at in range(len(sites_rows))]


def site_of(context: Context) -> Site:
    """Find the site behind a Flower context."""
    return all_sites[int(context.node_config["partition-id"])]


# 4. What every site is asked to do, and the privacy plan: epsilon covers all rounds together.
task = TrainTask(rounds=10, steps=5, lr=15.0)
mean_size = float(np.mean([len(rows.train) for rows in sites_rows]))
releases = Release(
    mechanism="gradients",
    clip_norm=0.5,
    count=task.rounds * task.steps,
    public_size=mean_size,
)
plan = plan_for(releases, epsilon=8, delta=1e-5)
print(plan.describe())

# 5. A Grid carries the messages. LocalGrid, Flower's Ray runtime or a SuperLink would do as well.
names = [site.name for site in all_sites]
grid = StackedGrid(make_client_app(site_of), names, site_of=site_of)


def show(state: State, record: RoundRecord) -> None:
    """Print a line after every round."""
    worst = min(record.evaluations.items(), key=lambda item: item[1].accuracy)
    spent = plan.epsilon_after({"gradients": max(record.releases.values())})
    print(
        f"round {state.round:2}  accuracy {record.accuracy:.1%}  "
        f"worst {worst[0]} {worst[1].accuracy:.1%}  epsilon {spent:.2f}"
    )


# 6. Rounds.
run(
    grid,
    Momentum(),
    sites={node: d.name for node, d in describe_sites(grid).items()},
    start=State(0, initial_head("linear", card.width + 1, len(digits.classes))),
    config=task_config(task, plan, seed=SEED),
    settings=Settings(rounds=task.rounds, seed=SEED),
    on_round=show,
)
