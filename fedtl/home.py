"""Where fedtl keeps things on disk, and how it writes them: atomically or not at all."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedtl.errors import CacheError


def home() -> Path:
    """Return ``$FEDTL_HOME``, or ``fedtl`` in the user's cache folder; made on first write.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, FEDTL_HOME="/somewhere"):
    ...     print(home())
    /somewhere
    """
    named = os.environ.get("FEDTL_HOME")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return base.expanduser() / "fedtl"


def write_atomic(path: Path, write: Callable[[IO[bytes]], object], *, mode: int = 0o644) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it into place.

    A reader sees the old file or the new one, never half of one; of two writers the last one wins.

    Parameters
    ----------
    path : Path
        The file to create or replace; missing parent folders are created.
    write : Callable
        Called with the open binary file.
    mode : int
        The file's permissions.

    Raises
    ------
    CacheError
        The disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it when the process ends.

    Raises
    ------
    CacheError
        With code ``folder.busy``: another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise CacheError(
            f"Another process works in '{folder}'.",
            next_step="Wait until it is done, or choose another folder.",
            code="folder.busy",
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def unwritable(path: Path, error: OSError) -> CacheError:
    """Turn an ``OSError`` met while writing ``path`` into an error with a cure."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheError(
            f"The disk is full: '{path}' could not be written.",
            next_step="Free some space (`fedtl features prune` empties the feature cache) or set "
            "FEDTL_HOME to a larger disk, then run the same command again.",
            code="disk.full",
        )
    return CacheError(
        f"'{path}' cannot be written ({error.strerror}).",
        next_step="Check the folder's permissions or set FEDTL_HOME to a folder you may write to.",
        code="disk.unwritable",
    )
