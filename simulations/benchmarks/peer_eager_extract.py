"""Eager PyTorch extracts features with tf_efficientnet_lite0; prints one line of JSON.

fp32, 224 px, batches of 32, 2 threads: what ``model(batch)`` under ``no_grad`` gives. The batch
is seeded noise; ``--input`` and ``--features`` save it and its features as .npy, so that the
numbers of other engines can be compared with these.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import peer_backbone

SEED = 1


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """How fast features were extracted.

    Parameters
    ----------
    images_per_second : float
        Of the median batch.
    batches, batch, pixels, threads : int
        How it was measured, after one batch to warm up.
    layout : str
        ``contiguous`` (PyTorch's default) or ``channels_last``.
    peer : str
        Name and version of the peer.
    """

    images_per_second: float
    batches: int
    batch: int
    pixels: int
    threads: int
    layout: str
    peer: str


def fixed_batch(*, batch: int, pixels: int) -> np.ndarray:
    """Return the seeded input ``[batch, 3, pixels, pixels]``, float32 in -1 .. 1."""
    random = np.random.default_rng(SEED)
    return random.random((batch, 3, pixels, pixels), dtype=np.float32) * 2 - 1


def run(arguments: argparse.Namespace) -> ExtractResult:
    """Measure, and save the features if a path is given.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command line.
    """
    import torch

    torch.set_num_threads(arguments.threads)
    images = fixed_batch(batch=arguments.batch, pixels=arguments.pixels)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = peer_backbone.lite0()
    if arguments.channels_last:
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.from_numpy(images).to(memory_format=layout)
    with torch.no_grad():
        features = model(x)
        rate = peer_backbone.images_per_second(model, x, batches=arguments.batches)
    if arguments.input:
        np.save(arguments.input, images)
    if arguments.features:
        np.save(arguments.features, features.numpy())
    return ExtractResult(
        images_per_second=rate,
        batches=arguments.batches,
        batch=arguments.batch,
        pixels=arguments.pixels,
        threads=arguments.threads,
        layout="channels_last" if arguments.channels_last else "contiguous",
        peer=f"torch {torch.__version__}, eager",
    )


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--features", type=Path, help=".npy file to write: features [batch, 1280]")
    add("--input", type=Path, help=".npy file to write: the batch [batch, 3, pixels, pixels]")
    add("--batches", type=int, default=8, help="batches to time (default: %(default)s)")
    add("--batch", type=int, default=32, help="images in a batch (default: %(default)s)")
    add("--pixels", type=int, default=224, help="default: %(default)s")
    add("--threads", type=int, default=2, help="default: %(default)s")
    add("--channels-last", action="store_true", help="lay tensors out with channels last")
    arguments = parser.parse_args()
    if min(arguments.batches, arguments.batch, arguments.threads) < 1 or arguments.pixels < 32:
        parser.error("batches, batch and threads must be at least 1, pixels at least 32.")
    print(json.dumps(asdict(run(arguments))), flush=True)


if __name__ == "__main__":
    main()
