"""fedtl extracts features with tf_efficientnet_lite0; prints one line of JSON.

The batch of ``peer_eager_extract.py`` (``--input``) through the engine a site uses on a CPU, ONNX
Runtime in fp32. The largest difference from eager PyTorch's features (``--features``) is part of
the result. The graph is exported before the clock starts, as it is once per backbone and machine.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from peer_backbone import images_per_second


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """How fast features were extracted, and how far they are from eager PyTorch's.

    Parameters
    ----------
    images_per_second : float
        Of the median batch.
    batches, batch, pixels, threads : int
        How it was measured, after one batch to warm up.
    largest_difference, largest_feature : float
        Between the two engines' features, and of eager PyTorch's own.
    engine : str
        Name of fedtl's engine.
    """

    images_per_second: float
    batches: int
    batch: int
    pixels: int
    threads: int
    largest_difference: float
    largest_feature: float
    engine: str


def run(images: Path, features: Path, *, batches: int, threads: int) -> ExtractResult:
    """Measure one batch many times, and compare its features."""
    from fedtl.backbone import open_engine, resolve

    x = np.load(images, allow_pickle=False)
    expected = np.load(features, allow_pickle=False)
    pixels = x.shape[2]
    card = resolve("tf_efficientnet_lite0", None, taps="final", image_size=pixels)
    with open_engine(card, "onnx", threads=threads) as engine:
        found = engine(x)
        rate = images_per_second(engine, x, batches=batches)
    return ExtractResult(
        images_per_second=rate,
        batches=batches,
        batch=len(x),
        pixels=pixels,
        threads=threads,
        largest_difference=float(np.abs(found - expected).max()),
        largest_feature=float(np.abs(expected).max()),
        engine=engine.name,
    )


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--input", type=Path, required=True, help=".npy file: the batch [batch, 3, pixels, pixels]")
    add("--features", type=Path, required=True, help=".npy file: its features [batch, 1280]")
    add("--batches", type=int, default=8, help="batches to time (default: %(default)s)")
    add("--threads", type=int, default=2, help="default: %(default)s")
    arguments = parser.parse_args()
    for path in (arguments.input, arguments.features):
        if not path.is_file():
            parser.error(f"'{path}' is missing; peer_eager_extract.py writes it.")
    if min(arguments.batches, arguments.threads) < 1:
        parser.error("--batches and --threads must be at least 1.")
    wanted = {"batches": arguments.batches, "threads": arguments.threads}
    print(json.dumps(asdict(run(arguments.input, arguments.features, **wanted))), flush=True)


if __name__ == "__main__":
    main()
