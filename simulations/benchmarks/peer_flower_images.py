"""Stock Flower on Ray runs a frozen backbone on images in every round; prints one line of JSON.

The first training images of Fashion-MNIST at 128 px, tf_efficientnet_lite0 with ImageNet weights,
10 iid sites, one local epoch of SGD on the head in batches of 32, FedAvg. ``total_seconds``
counts from the script's first line until Ray has ended; ``total_seconds_of_ten_rounds`` is
extrapolated from the mean of ``seconds_per_round`` unless ten rounds were run, and
``extrapolated`` says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import peer_backbone
import peer_flower

STARTED = time.perf_counter()
LEARNING_RATE = 0.03
PIXELS = 128


@dataclass(frozen=True, slots=True)
class ImagesResult:
    """What the job took, in seconds, and what was learned.

    Parameters
    ----------
    peer : str
        Name, version and settings of the peer.
    sites, images, pixels, rounds : int
        Size of the job; ``rounds`` were really run.
    total_seconds : float
        From the script's first line until Ray has ended.
    startup_seconds : float
        From the script's first line until the first round could begin.
    seconds_per_round : list[float]
        Each round, from its configuration to the end of its aggregation.
    total_seconds_of_ten_rounds : float
        The total, with the mean round put in for each round that is missing or too many.
    extrapolated : bool
        Whether the ten rounds' total is such a calculation.
    loss, accuracy : float
        On the sites' batches in the last round, each before its own step.
    """

    peer: str
    sites: int
    images: int
    pixels: int
    rounds: int
    total_seconds: float
    startup_seconds: float
    seconds_per_round: list[float]
    total_seconds_of_ten_rounds: float
    extrapolated: bool
    loss: float
    accuracy: float


def run(arguments: argparse.Namespace) -> ImagesResult:
    """Run the job and return what it took.

    Parameters
    ----------
    arguments : argparse.Namespace
        ``folder``, ``images``, ``sites``, ``rounds`` and ``num_cpus`` of the command line.
    """
    import flwr
    import torch
    from flwr.app import ArrayRecord, ConfigRecord
    from peer_flower_images_client import app

    head = {"weight": torch.zeros(10, peer_backbone.DIM), "bias": torch.zeros(10)}
    sent = {"folder": str(arguments.folder), "images": arguments.images, "pixels": PIXELS}
    watch, result = peer_flower.simulate(
        app,
        sites=arguments.sites,
        rounds=arguments.rounds,
        arrays=ArrayRecord(head),
        config=ConfigRecord({**sent, "lr": LEARNING_RATE}),
        num_cpus=arguments.num_cpus,
    )
    total = time.perf_counter() - STARTED
    missing = 10 - arguments.rounds
    learned = result.train_metrics_clientapp[arguments.rounds]
    return ImagesResult(
        peer=f"flower {flwr.__version__} on ray, {arguments.num_cpus:g} processors per client",
        sites=arguments.sites,
        images=arguments.images,
        pixels=PIXELS,
        rounds=arguments.rounds,
        total_seconds=total,
        startup_seconds=watch.begins[0] - STARTED,
        seconds_per_round=watch.seconds_per_round,
        total_seconds_of_ten_rounds=total + missing * statistics.mean(watch.seconds_per_round),
        extrapolated=missing != 0,
        loss=float(str(learned["train_loss"])),
        accuracy=float(str(learned["train_accuracy"])),
    )


def main() -> None:
    """Read the arguments, run the job and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=10, help="default: %(default)s; about half a minute each")
    add("--images", type=int, default=3000, help="default: %(default)s")
    add("--sites", type=int, default=10, help="default: %(default)s")
    add("--num-cpus", type=float, default=1.0, help="processors per client (default: %(default)s)")
    add("--folder", type=Path, default=peer_backbone.FASHION_MNIST, help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not 2 <= arguments.sites <= arguments.images:
        parser.error("--rounds must be at least 1, and --sites from 2 to the number of --images.")
    arguments.folder = arguments.folder.resolve()
    try:
        peer_backbone.fashion_mnist(str(arguments.folder), arguments.images)
    except (OSError, EOFError, ValueError) as error:
        parser.error(
            f"Fashion-MNIST cannot be read: {error}. Install the Debian package "
            "dataset-fashion-mnist, or name the folder of its idx.gz files with --folder."
        )
    peer_flower.quieten()
    print(json.dumps(asdict(run(arguments))), flush=True)


if __name__ == "__main__":
    main()
