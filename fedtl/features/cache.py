"""The feature cache: features by the content of the picture and the digest of the backbone.

``$FEDTL_HOME/features/<key>/blocks`` holds append-only blocks, ``<key>/views`` training matrices
made from them. A file appears whole or not at all and is named after its content, so any number of
processes may write at once: at worst two extract one picture, and both write the same features.
Features say almost as much as pictures, so only the account that made them can read the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import CacheError
from fedtl.features.block import SUFFIX, Block, DamagedBlock, open_block, write_block
from fedtl.home import home, unwritable

_log = logging.getLogger(__name__)
_DEFAULT_GB = 20.0
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache holds for one backbone.

    Parameters
    ----------
    key : str
        The backbone's digest, with the precision where it is not float32.
    n_bytes : int
        Size on disk.
    n_blocks, n_views : int
        Number of blocks of features and of training matrices.
    last_used : float
        Seconds since 1970.
    """

    key: str
    n_bytes: int
    n_blocks: int
    n_views: int
    last_used: float


class FeatureCache:
    """The cached features of one backbone.

    Parameters
    ----------
    key : str
        The backbone's digest, with the precision where it is not float32.
    width : int
        Length of one feature vector.
    """

    def __init__(self, key: str, width: int) -> None:
        self.key = key
        self.width = width
        self.folder = root() / key
        self._blocks: list[Block] = []
        self._starts = [0]
        self._index: dict[bytes, int] = {}
        for path in sorted((self.folder / "blocks").glob(f"*{SUFFIX}")):
            self._load(path)

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of each picture, int64 [n]; -1 where it is not cached."""
        found = (self._index.get(digest.tobytes(), -1) for digest in digests)
        return np.fromiter(found, dtype=np.int64, count=len(digests))

    def add(
        self, digests: NDArray[np.uint8], *, notes: Sequence[str], x: NDArray[np.float32]
    ) -> None:
        """Append features as one block and make room for it.

        Raises
        ------
        CacheError
            The disk is full or the cache cannot be written; what was there before stays.
        """
        path = write_block(self.folder / "blocks", digests, notes=notes, x=x)
        self._load(path)
        make_room(keep=[block.path for block in self._blocks])

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return features by row, float32 [n, width]; a view where one block has them in order."""
        if (view := self._view(rows)) is not None:
            return view
        gathered = np.empty((len(rows), self.width), dtype=np.float32)
        owners = self._owners(rows)
        for owner in np.unique(owners):
            chosen = np.flatnonzero(owners == owner)
            gathered[chosen] = self._blocks[owner].x[rows[chosen] - self._starts[owner]]
        return gathered

    def notes(self, rows: NDArray[np.int64]) -> list[str]:
        """Return what the transform did to the pictures of these rows."""
        owners = self._owners(rows)
        return [
            self._blocks[owner].notes[row - self._starts[owner]]
            for row, owner in zip(rows.tolist(), owners.tolist(), strict=True)
        ]

    def touch(self, rows: NDArray[np.int64]) -> None:
        """Note that these rows were used, so that others are evicted first."""
        for owner in np.unique(self._owners(rows)):
            mark_used(self._blocks[owner].path)

    def _owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts[1:], rows, side="right")

    def _view(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if len(rows) == 0 or (np.diff(rows) != 1).any():
            return None
        first, last = self._owners(rows[[0, -1]])
        start = int(rows[0]) - self._starts[first]
        return self._blocks[first].x[start : start + len(rows)] if first == last else None

    def _load(self, path: Path) -> None:
        try:
            block = open_block(path, self.width)
        except FileNotFoundError:  # another process made room
            return
        except OSError as error:
            raise _unreadable(path, error) from error
        except (DamagedBlock, ValueError, KeyError, TypeError) as error:
            _log.warning(
                "The feature block '%s' is damaged (%s); it is removed and its pictures are "
                "extracted again.",
                path,
                error,
            )
            remove(path)
            return
        start = self._starts[-1]
        self._blocks.append(block)
        self._starts.append(start + len(block.digests))
        self._index.update({d.tobytes(): start + i for i, d in enumerate(block.digests)})


def root() -> Path:
    """Return the folder of the cache."""
    return home() / "features"


def limit() -> int:
    """Return how many bytes the cache may hold: ``FEDTL_CACHE_GB`` (10**9 bytes), 20 by default.

    Raises
    ------
    CacheError
        The variable is not a positive number.
    """
    text = os.environ.get("FEDTL_CACHE_GB", str(_DEFAULT_GB))
    with contextlib.suppress(ValueError, OverflowError):
        if float(text) > 0:
            return int(float(text) * 1e9)
    raise CacheError(f"FEDTL_CACHE_GB is {text!r}.", next_step="Set it to gigabytes, such as 20.")


def usage() -> list[Entry]:
    """Return what the cache holds, one entry per backbone, the most recently used first."""
    entries = []
    for folder in (path for path in root().glob("*") if path.is_dir()):
        files = _files(folder)
        kinds = [path.parent.name for path, _ in files]
        n_bytes = sum(status.st_size for _, status in files)
        used = max((status.st_atime for _, status in files), default=0.0)
        entries.append(
            Entry(folder.name, n_bytes, kinds.count("blocks"), kinds.count("views"), used)
        )
    return sorted(entries, key=lambda entry: -entry.last_used)


def prune(max_bytes: int = 0) -> int:
    """Remove the least recently used files until the cache holds at most ``max_bytes``.

    Parameters
    ----------
    max_bytes : int
        0 empties the cache.

    Returns
    -------
    int
        Bytes freed.

    Raises
    ------
    CacheError
        A file cannot be removed.
    """
    freed = _evict(max_bytes, set())
    if max_bytes == 0:
        for folder in root().glob("*"):
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def make_room(*, keep: Sequence[Path]) -> None:
    """Bring the cache under its limit without touching the files in ``keep``."""
    _evict(limit(), set(keep))


def mark_used(path: Path) -> None:
    """Set a file's access time by hand, because many disks are mounted without."""
    # a cache that may only be read is still a cache
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def remove(path: Path) -> None:
    """Remove a cached file, which may be gone already.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _evict(max_bytes: int, keep: set[Path]) -> int:
    files = _files(root())
    excess = sum(status.st_size for _, status in files) - max_bytes
    freed = 0
    for path, status in sorted(files, key=lambda file: file[1].st_atime_ns):
        young = path.suffix == ".tmp" and time.time() - status.st_mtime < _STALE_SECONDS
        if freed >= excess or path in keep or (young and max_bytes > 0):
            continue
        remove(path)
        freed += status.st_size
    return freed


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """List files below a folder with their status, leaving out those that vanish meanwhile."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                found.append((path, path.stat()))
    return found


def _unreadable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"'{path}' cannot be read ({error.strerror}).",
        next_step="Check its permissions, or empty the cache with `fedtl features prune`.",
        code="cache.unreadable",
    )
