"""Data sets known by name: scanned digits that scikit-learn carries, and Fashion-MNIST."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtl.data.arrays import ArraySource, digests_of
from fedtl.data.rows import Rows
from fedtl.errors import DataError

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
_MAX_IDX_BYTES = 2**30


def digits() -> Rows:
    """Return 1,797 real scans of handwritten digits, 8x8 grey, 10 classes (Alpaydin & Kaynak 1998).

    The file is read straight from the scikit-learn installation: importing
    ``sklearn.datasets`` for it would cost a second.

    Raises
    ------
    DataError
        scikit-learn is not installed, or lacks the file.
    """
    try:
        spec = importlib.util.find_spec("sklearn")
        folder = Path(((spec and spec.submodule_search_locations) or [""])[0])
        table = np.loadtxt(folder / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint16)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(
            f"'digits' cannot be read from scikit-learn ({error}).",
            next_step="Run `pip install --force-reinstall scikit-learn`.",
            code="data.missing",
        ) from error
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Rows(
        name="digits",
        labels=[str(label) for label in table[:, -1].tolist()],
        digests=digests_of(pixels),
        source=ArraySource(pixels),
        classes=tuple("0123456789"),
    )


def fashion_mnist() -> Rows:
    """Return Fashion-MNIST, 28x28 grey, 60,000 + 10,000 (Xiao et al. 2017, arXiv:1708.07747).

    It is looked for in ``$FEDTL_FASHION_MNIST``, else where Debian's package puts it. The official
    10,000 test pictures are the test split.

    Raises
    ------
    DataError
        The files are missing or damaged.
    """
    folder = Path(os.environ.get("FEDTL_FASHION_MNIST") or _FASHION_FOLDER)
    parts = [_fashion_part(folder, part) for part in ("train", "t10k")]
    pixels = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    n_train, n_test = (len(images) for images, _ in parts)
    return Rows(
        name="fashion-mnist",
        labels=[FASHION_CLASSES[label] for label in labels.tolist()],
        digests=digests_of(pixels),
        source=ArraySource(pixels),
        classes=FASHION_CLASSES,
        split=("train",) * n_train + ("test",) * n_test,
    )


SOURCES: dict[str, Callable[[], Rows]] = {"digits": digits, "fashion-mnist": fashion_mnist}


def _fashion_part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(labels) or labels.max(initial=0) >= len(FASHION_CLASSES):
        raise _damaged(folder, f"{len(images)} pictures and {len(labels)} labels do not fit")
    return images, labels


def _read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes; never unpacks more than its header announces, or 1 GiB."""
    try:
        with gzip.open(path) as file:
            magic, *shape = struct.unpack(f">{1 + ndim}I", file.read(4 + 4 * ndim))
            n_bytes = int(np.prod(shape, dtype=object))
            if magic != 0x0800 + ndim or n_bytes > _MAX_IDX_BYTES:
                raise _damaged(path, "it is not an IDX file of bytes")
            data = file.read(n_bytes + 1)
    except FileNotFoundError as error:
        raise DataError(
            f"Fashion-MNIST is not installed: '{path}' is missing.",
            next_step="Run `apt-get install dataset-fashion-mnist`, or set FEDTL_FASHION_MNIST to "
            "a folder with the four idx.gz files.",
            code="data.missing",
        ) from error
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(data) != n_bytes:
        raise _damaged(path, f"it should hold {n_bytes} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"'{path}' is damaged ({why}).",
        next_step="Copy it again, or run `apt-get install --reinstall dataset-fashion-mnist`.",
        code="data.damaged",
    )
