"""Pictures in files: checked once by a full decode, read again only on demand."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtl.data.images import Picture, bit_depth, decode, refusal
from fedtl.data.manifest import Problem
from fedtl.data.rows import Rows
from fedtl.errors import DataError

MAX_BYTES = 512 * 2**20
Progress = Callable[[int, int], None]

# Small, so that an interrupt waits for one batch and not for the whole folder.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a folder or a table lists it, relative to the data folder or absolute."""

    path: str
    label: str
    group: str = ""
    split: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FileSource:
    """Reads picture files, and refuses a file that is no longer the one that was indexed."""

    root: Path
    paths: tuple[str, ...]
    digests: NDArray[np.uint8]

    def read(self, row: int) -> Picture:
        """Return the picture of one row.

        Raises
        ------
        DataError
            The file is gone, unreadable, or has changed since the data set was opened.
        """
        path = self.paths[row]
        data = _content(self.root / path)
        if hashlib.sha256(data).digest() != self.digests[row].tobytes():
            raise DataError(
                f"'{path}' has changed since the data set was opened.",
                next_step="Start the command again, so that the folder is read afresh.",
                code="data.changed",
            )
        return decode(data, place=f"'{path}'")


@dataclass(frozen=True, slots=True)
class _Finding:
    digest: bytes = b""
    bits: int = 0
    reason: str = ""


def index(
    name: str,
    root: Path,
    entries: Sequence[Entry],
    *,
    classes: tuple[str, ...] = (),
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Rows:
    """Read, hash and fully decode every file once; what cannot be decoded becomes a problem.

    Decoding runs on threads (Pillow lets go of the interpreter) and takes a small part of the time
    that a backbone needs for the same picture, so the counts are known before anything is trained.
    """
    findings = list(_inspect_all(root, entries, progress))
    good = [row for row, finding in enumerate(findings) if not finding.reason]
    bad = [Problem(e.path, f.reason) for e, f in zip(entries, findings, strict=True) if f.reason]
    raw = b"".join(findings[row].digest for row in good)
    digests = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32)
    kept = [entries[row] for row in good]
    return Rows(
        name=name,
        labels=[entry.label for entry in kept],
        digests=digests,
        source=FileSource(root, tuple(entry.path for entry in kept), digests),
        classes=classes,
        groups=_column([entry.group for entry in kept]),
        split=_column([entry.split for entry in kept]),
        sites=_column([entry.site for entry in kept]),
        problems=(*problems, *bad),
        notes=(*notes, *depth_notes(findings[row].bits for row in good)),
    )


def depth_notes(depths: Iterator[int]) -> list[str]:
    """Say how many pictures use less than the 16 bits they are stored in."""
    return [
        f"{count} pictures are stored with 16 bits but use {bits}; "
        f"they are scaled by {2**bits - 1}, not 65535."
        for bits, count in sorted(Counter(depths).items())
        if 8 < bits < 16
    ]


def _inspect_all(
    root: Path, entries: Sequence[Entry], progress: Progress | None
) -> Iterator[_Finding]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            yield from pool.map(partial(_inspect, root), batch)
            if progress is not None:
                progress(start + len(batch), len(entries))


def _inspect(root: Path, entry: Entry) -> _Finding:
    try:
        data = _content(root / entry.path)
        picture = decode(data)
    except DataError as error:
        return _Finding(reason=error.code.removeprefix("data."))
    return _Finding(hashlib.sha256(data).digest(), bit_depth(picture))


def _content(path: Path) -> bytes:
    """Read a regular file; a pipe or device would block or never end."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= MAX_BYTES:
            return path.read_bytes()
    except (OSError, ValueError) as error:
        raise refusal("unreadable", f"'{path.name}'") from error
    too_large = stat.S_ISREG(found.st_mode)
    raise refusal("too-large" if too_large else "unreadable", f"'{path.name}'")


def _column(values: list[str]) -> tuple[str, ...] | None:
    return tuple(values) if any(values) else None
