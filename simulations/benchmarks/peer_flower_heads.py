"""Stock Flower on Ray trains linear heads on cached features; prints one line of JSON.

A Message-API app as in Flower's own PyTorch quickstart: FedAvg, state dict to ArrayRecord and back,
``torch.optim.SGD``. The rounds are timed from the first ``configure_train`` to the end of the last
``aggregate_train``; starting Ray and its workers is reported as ``startup_seconds``. By default the
workers are warmed up and keep the features. With ``--quickstart`` the client does what Flower's
quickstart does: it loads its partition and makes a ``DataLoader`` in each message, and nothing is
warmed up.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import peer_flower
import peer_heads

STARTED = time.perf_counter()


def run(
    features: str,
    *,
    sites: int,
    rounds: int,
    num_cpus: float,
    partitions: str = "",
    sampled: int = 0,
) -> peer_heads.HeadsResult:
    """Run the job and return what it took.

    Parameters
    ----------
    features : str
        The ``.npz`` file; every worker reads it once.
    sites, rounds : int
        Size of the job.
    num_cpus : float
        Processors that Ray reserves for one client.
    partitions : str
        Folder with one file per site for the behaviour of the quickstart; empty for warm workers.
    sampled : int
        Sites in a round; 0 takes all.
    """
    import flwr
    import torch
    from flwr.app import ArrayRecord, ConfigRecord
    from peer_flower_heads_client import app, write_partitions

    dim = peer_heads.load(features)[0].shape[2]
    classes = peer_heads.CLASSES
    head = {"weight": torch.zeros(classes, dim), "bias": torch.zeros(classes)}
    if partitions:
        write_partitions(Path(partitions), features)
    watch, result = peer_flower.simulate(
        app,
        sites=sites,
        rounds=rounds,
        arrays=ArrayRecord(head),
        config=ConfigRecord(
            {"features": features, "partitions": partitions, "lr": peer_heads.LEARNING_RATE}
        ),
        num_cpus=num_cpus,
        warm=not partitions,
        sampled=sampled,
    )
    weight, bias = (result.arrays[name].numpy() for name in ("weight", "bias"))
    loss, accuracy = peer_heads.judge(weight, bias, path=features)
    return peer_heads.HeadsResult(
        peer=f"flower {flwr.__version__} on ray, {num_cpus:g} processors per client, "
        + ("as in the quickstart" if partitions else "warm workers that keep the features"),
        sites=sampled or sites,
        rounds=rounds,
        seconds=watch.seconds,
        startup_seconds=watch.begins[0] - STARTED,
        loss=loss,
        accuracy=accuracy,
    )


def main() -> None:
    """Read the arguments, run the job and print its result."""
    parser = peer_heads.parser(__doc__)
    parser.add_argument(
        "--num-cpus", type=float, default=1.0, help="processors per client (default: %(default)s)"
    )
    parser.add_argument(
        "--quickstart",
        action="store_true",
        help="no warm-up; the client loads its partition in each message",
    )
    parser.add_argument("--sampled", type=int, default=0, help="sites in a round (default: all)")
    arguments = parser.parse_args()
    sites = peer_heads.check(arguments, parser)
    peer_flower.quieten()
    with tempfile.TemporaryDirectory() as folder:
        run(
            arguments.features,
            sites=sites,
            rounds=arguments.rounds,
            num_cpus=arguments.num_cpus,
            partitions=folder if arguments.quickstart else "",
            sampled=arguments.sampled,
        ).print()


if __name__ == "__main__":
    main()
