"""One door to every data set."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedtl.data import rows as rows_
from fedtl.data.arrays import open_npz
from fedtl.data.files import Progress
from fedtl.data.folder import open_folder
from fedtl.data.manifest import Manifest
from fedtl.data.named import SOURCES
from fedtl.data.rows import Rows
from fedtl.data.split import check_fraction, keep
from fedtl.data.table import open_table
from fedtl.errors import DataError, nearest


def open_data(
    source: str,
    *,
    test_fraction: float = 0.2,
    classes: Sequence[str] = (),
    tolerate_unreadable: int = 0,
    limit: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Open a data set by name or path and say, before anything is trained, what is wrong with it.

    Parameters
    ----------
    source : str
        ``"digits"``, ``"fashion-mnist"``, a folder with one sub-folder per class, a folder of sites
        that each hold class folders, a CSV table (see :func:`~fedtl.data.table.open_table`) or an
        ``.npz`` file (see :func:`~fedtl.data.arrays.open_npz`). A known name wins over a folder of
        that name; write ``./digits`` for the folder.
    test_fraction : float
        Expected share of rows (or groups) held out, where the data do not say it themselves.
    classes : Sequence[str]
        All class names of the federation, in order. Needed where a site does not hold every class,
        because a label is an index into this list.
    tolerate_unreadable : int
        How many files may be left out as unreadable; they are listed in ``problems`` all the same.
    limit : int
        Keep this many training rows and a proportionate share of test rows; 0 keeps all.
    progress : Callable[[int, int], None], optional
        Called with the number of files checked and their total.

    Raises
    ------
    DataError
        Whenever the data cannot be used as asked; it names the place and the cure.

    Examples
    --------
    >>> digits = open_data("digits", limit=100)
    >>> int((~digits.test).sum()), digits.source.read(0).pixels.shape
    (100, (8, 8))
    """
    _check_arguments(test_fraction, tolerate_unreadable, limit)
    rows = _find(source, classes, progress)
    _check_problems(rows, source, tolerate_unreadable)
    names, labels = rows_.number(rows, classes)
    test = rows_.split(rows, test_fraction)
    if bool(np.all(test)):
        raise DataError(
            f"'{source}' leaves no row for training: all {len(test)} are held out.",
            next_step="Add data, or lower test_fraction.",
            code="data.empty",
        )
    notes = rows.notes if test.any() else (*rows.notes, "No row is held out for testing.")
    manifest = Manifest(
        name=rows.name,
        classes=names,
        labels=labels,
        digests=rows.digests,
        groups=rows.groups,
        test=test,
        source=rows.source,
        problems=rows.problems,
        sites=rows.sites,
        notes=notes,
    )
    return manifest.subset(keep(rows.digests, test, limit=limit)) if limit else manifest


def _find(source: str, classes: Sequence[str], progress: Progress | None) -> Rows:
    if source in SOURCES:
        return SOURCES[source]()
    path = _existing(source)
    if path.is_dir():
        return open_folder(path, classes=classes, progress=progress)
    if path.suffix.lower() == ".csv":
        return open_table(path, progress=progress)
    if path.suffix.lower() == ".npz":
        return open_npz(path)
    raise DataError(
        f"'{source}' is neither a folder nor a .csv or .npz file.",
        next_step="Give one of these, or a name: " + ", ".join(sorted(SOURCES)) + ".",
        code="data.unknown",
    )


def _existing(source: str) -> Path:
    # "~nobody", a NUL, an endless name and a parent that may not be entered raise instead.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = Path(source).expanduser()
        if source and path.exists():
            return path
    raise DataError(
        f"There is no folder, file or known data set {source!r}.",
        next_step=nearest(source, SOURCES),
        code="data.missing",
    )


def _check_arguments(test_fraction: float, tolerated: int, limit: int) -> None:
    check_fraction(test_fraction)
    for name, value in (("tolerate_unreadable", tolerated), ("limit", limit)):
        if value < 0:
            raise DataError(
                f"{name} is {value}.", next_step="Give 0 or more.", code="data.argument"
            )


def _check_problems(rows: Rows, source: str, tolerated: int) -> None:
    problems = rows.problems
    if len(problems) > tolerated:
        first = "; ".join(f"{_shown(p.path)} ({p.reason})" for p in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            f"'{source}' has {len(problems)} files that cannot be used: {first}{more}.",
            next_step="Mend or remove them, or allow as many with "
            f"tolerate_unreadable = {len(problems)}.",
            code="data.unreadable",
        )
    if not rows.labels:
        raise DataError(
            f"'{source}' holds no pictures.",
            next_step="Put the pictures into one sub-folder per class.",
            code="data.empty",
        )


def _shown(path: str) -> str:
    """Make a file name printable that is not valid UTF-8."""
    return path.encode("utf-8", "replace").decode()
