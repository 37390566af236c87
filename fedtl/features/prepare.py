"""The training matrix: chosen features, normalised once, memory-mapped from then on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import DataError
from fedtl.features.cache import make_room, mark_used, remove, root
from fedtl.features.extract import Features
from fedtl.home import write_atomic

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 1024
_DIGEST_BYTES = 32

Statistics = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training matrix on disk.

    Parameters
    ----------
    x : NDArray[np.float32]
        ``[n, d + 1]``, read-only: vectors of length 1, then the constant bias feature.
    path : Path
        Its file.
    reused : bool
        It was there already.
    """

    x: NDArray[np.float32]
    path: Path
    reused: bool


def prepare(
    features: Features,
    rows: NDArray[np.integer],
    *,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    bias: float = 0.1,
) -> Prepared:
    """Write the matrix that heads are trained on, or find it where the same one was written before.

    Each row is ``(x - mean) / std``, scaled to Euclidean length 1 (a zero vector stays zero), with
    ``bias`` appended: unit length bounds what one picture can do to a gradient.

    Parameters
    ----------
    features : Features
        From :func:`fedtl.features.extract`.
    rows : NDArray[np.integer]
        ``[n]``, rows of the manifest in the order wanted.
    mean, std : NDArray, optional
        ``[d]``, public statistics, or statistics whose privacy was paid for.
    bias : float
        The constant last feature.

    Raises
    ------
    DataError
        A row does not exist, or the statistics have the wrong length or impossible values.
    CacheError
        The matrix cannot be written.
    """
    _check_rows(rows, len(features))
    shift = _statistics("mean", mean, features.width, default=0.0)
    spread = _statistics("std", std, features.width, default=1.0)
    if not (spread > 0).all():
        raise DataError(
            "std has an entry that is not positive.", next_step="Leave it out or clip it."
        )
    shape = (len(rows), features.width + 1)
    path = _path(features, rows, statistics=np.stack([shift, spread]), bias=bias)
    reused = _is_intact(path, shape)
    if not reused:
        made = _blocks(features, rows, shift, spread, bias=bias)
        write_atomic(path, lambda file: _write(file, made), mode=0o600)
        make_room(keep=[path])
    mark_used(path)
    return Prepared(_map(path, shape), path, reused)


def _check_rows(rows: NDArray[np.integer], n: int) -> None:
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"rows is {rows.dtype} {list(rows.shape)}.", next_step="Pass integers [n].")
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < n):
        raise DataError(
            f"rows go from {rows.min()} to {rows.max()}, the features have {n} rows.",
            next_step="Take the rows from the manifest the features were extracted from.",
        )


def _statistics(
    name: str, values: Statistics | None, width: int, *, default: float
) -> NDArray[np.float32]:
    given = np.full(width, default) if values is None else np.asarray(values)
    if given.shape != (width,) or not np.isfinite(given).all():
        raise DataError(
            f"{name} has the shape {list(given.shape)} or values that are not finite.",
            next_step=f"Pass {width} finite numbers.",
        )
    return given.astype(np.float32)


def _path(
    features: Features, rows: NDArray[np.integer], *, statistics: NDArray[np.float32], bias: float
) -> Path:
    """Return the file of a matrix: it is named after everything the matrix is made from."""
    made_from = hashlib.sha256(f"1 {features.key} {bias!r} ".encode())
    made_from.update(statistics.tobytes())
    made_from.update(features.digests[rows].tobytes())
    return root() / features.key / "views" / f"{made_from.hexdigest()[:32]}.f32"


def _blocks(
    features: Features,
    rows: NDArray[np.integer],
    shift: NDArray[np.float32],
    spread: NDArray[np.float32],
    *,
    bias: float,
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield prepared_rows(
            features.rows(rows[start : start + _ROWS_AT_ONCE]), shift, spread, bias=bias
        )


def prepared_rows(
    x: NDArray[np.float32],
    mean: NDArray[np.float32] | float = 0.0,
    std: NDArray[np.float32] | float = 1.0,
    *,
    bias: float = 0.1,
) -> NDArray[np.float32]:
    """Normalise ``[n, d]`` features to ``[n, d + 1]`` rows, as :func:`prepare` writes them."""
    x = (x - np.float32(mean)) / np.float32(std)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x /= np.where(length > 0, length, 1)
    return np.hstack([x, np.full((len(x), 1), bias, dtype=np.float32)])


def _write(file: IO[bytes], blocks: Iterator[NDArray[np.float32]]) -> None:
    """Write a matrix and behind it its SHA-256, so that one file carries both."""
    digest = hashlib.sha256()
    for block in blocks:
        content = np.ascontiguousarray(block).data
        digest.update(content)
        file.write(content)
    file.write(digest.digest())


def _is_intact(path: Path, shape: tuple[int, int]) -> bool:
    n_bytes = 4 * shape[0] * shape[1]
    try:
        whole = path.stat().st_size == n_bytes + _DIGEST_BYTES
    except OSError:
        return False
    if whole:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        if hashlib.sha256(content[:n_bytes].data).digest() == content[n_bytes:].tobytes():
            return True
    _log.warning("The training matrix '%s' is damaged; it is made again.", path)
    remove(path)
    return False


def _map(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    if shape[0] == 0:
        return np.empty(shape, dtype=np.float32)
    return np.memmap(path, dtype=np.float32, mode="r", shape=shape).view(np.ndarray)
