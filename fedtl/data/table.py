"""A CSV table that lists pictures: ``path,label[,group][,split][,site]``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from fedtl.data.files import Entry, Progress, index
from fedtl.data.manifest import Problem
from fedtl.data.rows import Rows
from fedtl.errors import DataError, nearest

COLUMNS = ("path", "label", "group", "split", "site")
_SPLITS = ("train", "test", "")


def open_table(path: Path, *, progress: Progress | None = None) -> Rows:
    """List and check the pictures that a CSV file names.

    A relative path is looked up in the table's folder and must stay in it: ``..`` or a link that
    leaves it is the problem ``"outside"``. An absolute path says clearly what it means and is taken
    as it is. ``split`` is train, test or empty (drawn by hash). Other columns are passed over.

    Raises
    ------
    DataError
        The file is no such table: columns or a label missing, a path twice, a row of another
        length, a split of another name.
    """
    root = path.parent.resolve()
    entries, problems, seen = [], [], dict[str, int]()
    for line, row in _lines(path):
        entry = _entry(path, line, row)
        target = os.path.normpath(root / entry.path)
        if seen.setdefault(target, line) != line:
            raise _bad(path, line, f"names '{entry.path}' again (first in line {seen[target]})")
        if os.path.isabs(entry.path) or _stays(root, target):
            entries.append(entry)
        else:
            problems.append(Problem(entry.path, "outside"))
    return index(path.stem, root, entries, problems=problems, progress=progress)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [column.strip().lower() for column in next(reader, [])]
            _check_columns(path, columns)
            for row in reader:
                if row and len(row) != len(columns):
                    raise _bad(path, reader.line_num, f"has {len(row)} of {len(columns)} columns")
                if row:
                    cells = (cell.strip() for cell in row)
                    yield reader.line_num, dict(zip(columns, cells, strict=True))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"'{path}' cannot be read as CSV ({error}).",
            next_step="Save it as comma-separated UTF-8.",
            code="data.table",
        ) from error


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [column for column in ("path", "label") if column not in columns]
    if missing or len(set(columns)) != len(columns):
        fault = f"lacks the column {missing[0]!r}" if missing else "names a column twice"
        raise DataError(
            f"'{path}' {fault} (found: {', '.join(columns) or 'nothing'}).",
            next_step="The first line must read path,label and may add group, split and site; "
            "separate by commas.",
            code="data.table",
        )


def _entry(path: Path, line: int, row: dict[str, str]) -> Entry:
    present = {column: row[column] for column in COLUMNS if column in row}
    for column, value in present.items():
        if column != "split" and value.lower() in ("", "nan"):
            raise _bad(path, line, f"has no {column}")
    split = present.get("split", "").lower()
    if split not in _SPLITS:
        raise _bad(path, line, f"has the split {split!r}", nearest(split, _SPLITS[:2]))
    return Entry(**{**present, "split": split})


def _stays(root: Path, target: str) -> bool:
    try:
        return Path(target).resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL in the name
        return False


def _bad(path: Path, line: int, fault: str, cure: str = "Mend the line.") -> DataError:
    return DataError(f"'{path}', line {line}, {fault}.", next_step=cure, code="data.table")
