"""fedtl trains linear heads on cached features in one process; prints one line of JSON.

The peers' job (``peer_heads.py``) through real messages, the real ClientApp and Flower's FedAvg.
Unlike the peers' batches, fedtl's are shuffled, so the loss is close to theirs and not identical.
The rounds are timed from the start of the first to the end of the last; imports and reading are
``startup_seconds``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import peer_flower
import peer_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context
    from flwr.serverapp import Grid

    from fedtl.privacy.plan import PrivacyPlan
    from fedtl.site.site import Site
    from fedtl.train.fit import Examples
    from fedtl.train.task import TrainTask

STARTED = time.perf_counter()
EPSILON, DELTA, CLIP_NORM = 8.0, 1e-5, 0.5


def sites_of(features: str) -> list[Site]:
    """Return one site per entry of the file, with the bias as a feature of ones."""
    from fedtl.site.site import Site

    x, y = peer_heads.load(features)
    ones = np.ones((*x.shape[:2], 1), np.float32)
    joined = np.concatenate([x, ones], axis=2)
    classes = tuple(str(c) for c in range(peer_heads.CLASSES))
    return [
        Site(
            name=f"site-{at:05d}",
            classes=classes,
            width=joined.shape[2],
            backbone="synthetic",
            load=rows_loader(joined[at], y[at]),
            simulated=True,
        )
        for at in range(len(x))
    ]


def rows_loader(x: np.ndarray, y: np.ndarray) -> Callable[[], tuple[Examples, Examples]]:
    """Return a function that gives all rows as training examples and none as held-out ones."""

    def load() -> tuple[Examples, Examples]:
        import torch

        from fedtl.train.fit import Examples

        tensors = torch.from_numpy(x), torch.from_numpy(y)
        empty = tensors[0][:0], tensors[1][:0]
        return Examples.of(*tensors), Examples.of(*empty)

    return load


def grid_of(sites: list[Site], via: str) -> Grid:
    """Return a Grid over the sites."""
    from fedtl.apps.client import make_client_app
    from fedtl.transport.local import LocalGrid
    from fedtl.transport.stacked import StackedGrid

    def site_of(context: Context) -> Site:
        return sites[int(context.node_config["partition-id"])]

    app, names = make_client_app(site_of), [site.name for site in sites]
    if via == "local":
        return LocalGrid(app, names)
    return StackedGrid(app, names, site_of=site_of)


def task_and_plan(
    *, sampling: str, private: bool, rows: int, rounds: int
) -> tuple[TrainTask, PrivacyPlan | None]:
    """Return the peers' local training, and a plan over all its releases if it is to be private."""
    from fedtl.privacy.plan import Release, plan_for
    from fedtl.train.task import TrainTask

    steps, batch = peer_heads.STEPS, peer_heads.BATCH
    task = TrainTask(
        rounds=rounds,
        steps=steps,
        sampling=sampling,
        batch_size=batch,
        lr=peer_heads.LEARNING_RATE,
    )
    if not private:
        return task, None
    release = Release(
        mechanism="gradients",
        clip_norm=CLIP_NORM,
        count=rounds * steps,
        sampling_rate=batch / rows if sampling == "poisson" else 1.0,
        public_size=rows,
    )
    return task, plan_for(release, epsilon=EPSILON, delta=DELTA)


def run(
    features: str, *, rounds: int, via: str, sampling: str, private: bool, sampled: int = 0
) -> peer_heads.HeadsResult:
    """Run the job and return what it took."""
    from fedtl.rounds import Settings, State
    from fedtl.rounds import run as run_rounds
    from fedtl.rounds.sites import describe_sites
    from fedtl.strategies import make_strategy
    from fedtl.train.heads import initial_head
    from fedtl.wire.messages import task_config

    rows, dim = peer_heads.load(features)[0].shape[1:]
    task, plan = task_and_plan(sampling=sampling, private=private, rows=rows, rounds=rounds)
    sites = sites_of(features)
    grid = grid_of(sites, via)
    named = {node: found.name for node, found in describe_sites(grid).items()}
    for site in sites:
        _ = site.examples
    _ = np.random.SFC64  # NumPy imports its generators when they are first asked for
    begun = time.perf_counter()
    outcome = run_rounds(
        grid,
        make_strategy("fedavg", {"fraction_evaluate": 0.0}),
        sites=named,
        start=State(0, initial_head("linear", dim + 1, peer_heads.CLASSES)),
        config=task_config(task, plan, seed=1),
        settings=Settings(rounds=rounds, sites_per_round=sampled, evaluate_every=0, metrics="off"),
    )
    ended = time.perf_counter()
    weight = np.asarray(outcome.head["weight"], np.float32)
    loss, accuracy = peer_heads.judge(weight[:, :-1], weight[:, -1], path=features)
    return peer_heads.HeadsResult(
        peer=f"fedtl, {via}, {sampling} batches, {'DP-SGD' if private else 'not private'}",
        sites=sampled or len(sites),
        rounds=rounds,
        seconds=ended - begun,
        startup_seconds=begun - STARTED,
        loss=loss,
        accuracy=accuracy,
    )


def main() -> None:
    """Read the arguments, run the job and print its result."""
    parser = peer_heads.parser(__doc__)
    add = parser.add_argument
    add("--via", choices=("local", "stacked"), default="stacked", help="default: %(default)s")
    add("--sampling", choices=("shuffle", "poisson", "full"), default="shuffle")
    add("--private", action="store_true", help="DP-SGD; not with shuffled batches")
    add("--sampled", type=int, default=0, help="sites in a round (default: all)")
    arguments = parser.parse_args()
    peer_heads.check(arguments, parser)
    if arguments.private and arguments.sampling == "shuffle":
        parser.error("--private needs --sampling poisson or full: that is what is accounted for.")
    peer_flower.quieten()
    wanted = {
        name: getattr(arguments, name)
        for name in ("rounds", "via", "sampling", "private", "sampled")
    }
    run(arguments.features, **wanted).print()


if __name__ == "__main__":
    main()
