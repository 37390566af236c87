"""The manifest: what a data set holds, row by row, without holding the pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedtl.data.images import Picture
from fedtl.errors import DataError


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that was left out, and why.

    Attributes
    ----------
    path : str
        The file, relative to the data folder.
    reason : str
        ``"zero-byte"``, ``"truncated"``, ``"not-an-image"``, ``"unreadable"``, ``"too-large"``,
        ``"unsupported"``, ``"outside"`` (a link or path that leaves the folder) or ``"link"``
        (a linked folder, which is not entered).
    """

    path: str
    reason: str


class Source(Protocol):
    """Where a manifest's pictures come from.

    Law: ``read(i)`` gives the picture whose content has the manifest's ``digests[i]``, or raises
    :class:`~fedtl.errors.DataError`. A source can be pickled and opens files only in ``read``.
    """

    def read(self, row: int) -> Picture:
        """Return the picture of one row."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some rows of another source, in the order given by ``rows``."""

    source: Source
    rows: NDArray[np.int64]

    def read(self, row: int) -> Picture:
        """Return the picture of one row."""
        return self.source.read(int(self.rows[row]))


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """A data set: labels, content digests, groups and split of ``n`` rows, and where to read them.

    Attributes
    ----------
    name : str
        ``"digits"``, the folder's name, ...
    classes : tuple[str, ...]
        Class names; a label is an index into them. A class may have no rows.
    labels : NDArray[np.int64]
        ``[n]``.
    digests : NDArray[np.uint8]
        ``[n, 32]``, the SHA-256 of each row's content: of the file's bytes, or of an array's dtype,
        shape and bytes.
    groups : tuple[str, ...] or None
        ``[n]``, what must not be torn apart, e.g. the patient.
    test : NDArray[np.bool_]
        ``[n]``, true where a row is held out.
    source : Source
        Reads row ``i``.
    problems : tuple[Problem, ...]
        Files that were left out.
    sites : tuple[str, ...] or None
        ``[n]``, the natural site of each row, where the data name one.
    notes : tuple[str, ...]
        What a careful reader should know, e.g. that 12-bit content was found in 16-bit files.

    Raises
    ------
    DataError
        The columns do not have the same number of rows.
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint8]
    groups: tuple[str, ...] | None
    test: NDArray[np.bool_]
    source: Source
    problems: tuple[Problem, ...] = ()
    sites: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for column in ("digests", "test", "groups", "sites"):
            values = getattr(self, column)
            if values is not None and len(values) != len(self.labels):
                raise DataError(
                    f"The manifest '{self.name}' has {len(self.labels)} labels but {len(values)} "
                    f"entries in '{column}'.",
                    next_step="Give every row one entry.",
                    code="data.rows",
                )

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the sorted (digest, label) pairs, blind to row order."""
        numbers = self.labels.astype(">i8").view(np.uint8).reshape(len(self), 8)
        pairs = np.concatenate([self.digests, numbers], axis=1)
        return hashlib.sha256(b"".join(sorted(pair.tobytes() for pair in pairs))).hexdigest()

    def subset(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Manifest:
        """Return a manifest of some rows (indices or a mask), in that order; nothing is read."""
        chosen = np.arange(len(self))[rows]
        return replace(
            self,
            labels=self.labels[chosen],
            digests=self.digests[chosen],
            groups=_pick(self.groups, chosen),
            test=self.test[chosen],
            source=_choose(self.source, chosen),
            sites=_pick(self.sites, chosen),
        )


def _choose(source: Source, rows: NDArray[np.int64]) -> Chosen:
    if isinstance(source, Chosen):
        return Chosen(source.source, source.rows[rows])
    return Chosen(source, rows)


def _pick(column: tuple[str, ...] | None, rows: NDArray[np.int64]) -> tuple[str, ...] | None:
    return None if column is None else tuple(column[row] for row in rows)
