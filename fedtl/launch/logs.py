"""Reads the logs of services: their end, and what comes next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

_LINE_BYTES = 400
_PAUSE = 0.3


def last_lines(path: Path, n: int) -> list[str]:
    """Return the last lines of a log; none if there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LINE_BYTES * n))
            return file.read().decode(errors="replace").splitlines()[-n:]
    except OSError:
        return []


def new_lines(path: Path) -> Iterator[str]:
    """Yield what is appended to a log from now on, without end, also over a rotation."""
    file, number = None, -1
    try:
        while True:
            if path.exists() and path.stat().st_ino != number:
                if file is not None:
                    yield from file
                    file.close()
                first = number == -1
                file = path.open(errors="replace")
                number = path.stat().st_ino
                if first:
                    file.seek(0, 2)
            if file is not None:
                yield from file
            time.sleep(_PAUSE)
    finally:
        if file is not None:
            file.close()
