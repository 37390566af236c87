"""Pictures in one array: hashed row by row, and read from ``.npz`` files without trust."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtl.data.files import depth_notes
from fedtl.data.images import Picture, bit_depth
from fedtl.data.rows import Rows
from fedtl.errors import DataError

MAX_ARRAY_BYTES = 16 * 2**30

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Reads pictures from an array ``[n, h, w]`` or ``[n, h, w, 3]``."""

    pixels: Pixels

    def read(self, row: int) -> Picture:
        """Return the picture of one row, as a view."""
        return Picture(self.pixels[row], self._mode)

    @property
    def _mode(self) -> str:
        if self.pixels.ndim == 4:
            return "RGB"
        return "L" if self.pixels.dtype == np.uint8 else "I;16"


def digests_of(pixels: Pixels) -> NDArray[np.uint8]:
    """Return ``[n, 32]``: the SHA-256 of each row's dtype, shape and bytes.

    Examples
    --------
    >>> digests_of(np.zeros((2, 8, 8), np.uint8)).shape
    (2, 32)
    """
    kind = pixels.dtype.newbyteorder("<")
    start = hashlib.sha256(f"{kind.str}{pixels.shape[1:]}".encode())
    raw = bytearray()
    for row in np.ascontiguousarray(pixels, dtype=kind):
        digest = start.copy()
        digest.update(row.data)
        raw += digest.digest()
    return np.frombuffer(bytes(raw), dtype=np.uint8).reshape(-1, 32)


def open_npz(path: Path) -> Rows:
    """Read ``x`` and ``y``, and if there ``group``, ``split``, ``site`` and ``class_names``.

    ``x`` is ``[n, h, w]``, ``[n, h, w, 1]`` or ``[n, h, w, 3]`` of uint8 or uint16; ``y`` is
    ``[n]`` of whole numbers (indices into ``class_names``, if given) or of strings. Pickled
    objects are never loaded.

    Raises
    ------
    DataError
        The file is damaged, too large, or its arrays do not fit together.
    """
    arrays = _load(path)
    for wanted in ("x", "y"):
        if wanted not in arrays:
            raise _bad(path, f"lacks the array {wanted!r} (found: {', '.join(arrays) or 'none'})")
    pixels = _pixels(path, arrays["x"])
    names = tuple(_strings(path, arrays, "class_names") or ())
    columns = {name: _strings(path, arrays, name) for name in ("group", "split", "site")}
    labels = _labels(path, arrays["y"], names)
    for name, column in {**columns, "y": tuple(labels)}.items():
        if column is not None and len(column) != len(pixels):
            raise _bad(path, f"has {len(pixels)} pictures but {len(column)} entries in {name!r}")
        if column is not None and name != "split" and "" in column:
            raise _bad(path, f"has an empty entry in {name!r}")
    if set(columns["split"] or ()) - {"train", "test", ""}:
        raise _bad(path, "has entries in 'split' other than train, test and the empty string")
    return Rows(
        name=path.stem,
        labels=labels,
        digests=digests_of(pixels),
        source=ArraySource(pixels),
        classes=names,
        groups=columns["group"],
        split=columns["split"],
        sites=columns["site"],
        notes=_depths(pixels),
    )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > MAX_ARRAY_BYTES:
            raise _bad(path, f"unpacks to {n_bytes} bytes, more than {MAX_ARRAY_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise _bad(path, f"cannot be read ({type(error).__name__}: {error})") from error


def _pixels(path: Path, x: NDArray[Any]) -> Pixels:
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise _bad(path, "has NaN in 'x'")
    if x.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise _bad(path, f"has 'x' of dtype {x.dtype}, not uint8 or uint16")
    if x.ndim == 4 and x.shape[3] == 1:
        x = x[..., 0]
    if x.ndim not in (3, 4) or x.shape[3:] not in ((), (3,)) or 0 in x.shape[1:]:
        raise _bad(path, f"has 'x' of shape {x.shape}, not [n, h, w] or [n, h, w, 1 or 3]")
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _labels(path: Path, y: NDArray[Any], names: tuple[str, ...]) -> list[str]:
    if y.ndim != 1:
        raise _bad(path, f"has 'y' of shape {y.shape}, not [n]")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise _bad(path, f"has NaN in 'y', first in row {int(np.argmax(np.isnan(y)))}")
    if y.dtype.kind not in "iuU":
        raise _bad(path, f"has 'y' of dtype {y.dtype}, not whole numbers or strings")
    if not names or y.dtype.kind == "U":
        return [str(label) for label in y.tolist()]
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(names):
        raise _bad(path, f"has labels from {y.min()} to {y.max()}, but {len(names)} class_names")
    return [names[label] for label in y.tolist()]


def _strings(path: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> tuple[str, ...] | None:
    if name not in arrays:
        return None
    values = arrays[name]
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise _bad(path, f"has {name!r} of dtype {values.dtype} and shape {values.shape}")
    return tuple(str(value) for value in values.tolist())


def _depths(pixels: Pixels) -> tuple[str, ...]:
    if pixels.dtype == np.uint8:
        return ()
    return tuple(depth_notes(bit_depth(Picture(row, "I;16")) for row in pixels))


def _bad(path: Path, fault: str) -> DataError:
    return DataError(
        f"'{path}' {fault}.",
        next_step="Save it with numpy.savez(file, x=pictures, y=labels); see fedtl.data.arrays.",
        code="data.arrays",
    )
