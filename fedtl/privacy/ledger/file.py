"""The ledger's SQLite file: made whole or not at all, and every failure explained."""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedtl.errors import CacheError, FedtlError, PrivacyError
from fedtl.home import unwritable

VERSION = 1
_APPLICATION = 0x46544C31  # "FTL1", which `file` can show
_TABLES = ("about", "datasets", "entries")
_SCHEMA = """
CREATE TABLE about (salt BLOB NOT NULL);
CREATE TABLE datasets (fingerprint TEXT PRIMARY KEY, unit TEXT NOT NULL, members BLOB NOT NULL);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE TABLE replies (number INTEGER PRIMARY KEY, reply BLOB NOT NULL);
""" + "".join(
    f"CREATE TRIGGER {table}_{what.lower()} BEFORE {what} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;\n"
    for table in (*_TABLES, "replies")
    for what in ("UPDATE", "DELETE")
)


def connect(
    path: Path, *, read_only: bool, durable: bool, timeout: float, make: bool
) -> tuple[sqlite3.Connection, int]:
    """Open a ledger file; return connection and version. With ``make`` it may be a new one.

    Raises
    ------
    CacheError
        Missing, unreadable, unwritable, damaged, or no ledger.
    """
    with explained(path):
        if make and not path.exists():
            _make(path, durable=durable, timeout=timeout)
        if not path.is_file():
            raise CacheError(
                f"There is no ledger '{path}'.",
                next_step="Name a ledger file, the folder of a site, or a run folder.",
                code="ledger.missing",
            )
        connection = _open(path, read_only=read_only, timeout=timeout)
        try:
            version = _check(connection, path)
            if not read_only and version <= VERSION:
                _prepare(connection, durable=durable)
        except BaseException:
            connection.close()
            raise
    return connection, version


def _open(path: Path, *, read_only: bool, timeout: float) -> sqlite3.Connection:
    if not read_only:
        return _connected(path, "mode=rw", timeout)
    try:
        return _connected(path, "mode=ro", timeout)
    except sqlite3.OperationalError:
        # SQLite wants to write beside a file that it only reads, unless nobody else is at it
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _connected(path, "mode=ro&immutable=1", timeout)


def _connected(path: Path, how: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a file, after checking that it is a whole ledger."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION or version < 1:
        raise damaged(path, "it was not written by fedtl")
    if version > VERSION:
        return int(version)
    found = connection.execute("SELECT name, sql FROM sqlite_master").fetchall()
    if _described(found) != _expected():
        raise damaged(path, "its tables or the triggers that protect them were changed")
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise damaged(path, str(answer))
    return int(version)


def _described(rows: list[tuple[str, str | None]]) -> dict[str, str]:
    return {name: " ".join(sql.split()) for name, sql in rows if sql}


_expected_once: dict[str, str] = {}


def _expected() -> dict[str, str]:
    if not _expected_once:
        memory = sqlite3.connect(":memory:")
        memory.executescript(_SCHEMA)
        rows = memory.execute("SELECT name, sql FROM sqlite_master").fetchall()
        memory.close()
        _expected_once.update(_described(rows))
    return _expected_once


def _prepare(connection: sqlite3.Connection, *, durable: bool) -> None:
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    connection.execute("PRAGMA journal_mode = WAL")  # flushes, if it is to
    if durable:  # whoever copies the file alone should get all of it
        connection.execute("PRAGMA wal_autocheckpoint = 1")


def _make(path: Path, *, durable: bool, timeout: float) -> None:
    """Make an empty ledger under another name and rename it: never a half-made one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise busy(path) from error
    try:
        if not path.exists():
            _write_new(path, durable=durable)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _write_new(path: Path, *, durable: bool) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        connection = sqlite3.connect(name, isolation_level=None)
        try:
            connection.executescript(
                f"PRAGMA journal_mode = OFF; PRAGMA synchronous = {'FULL' if durable else 'OFF'};"
                f"BEGIN; {_SCHEMA} INSERT INTO about VALUES (x'{secrets.token_hex(32)}');"
                f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        finally:
            connection.close()
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the file's name must last too
        finally:
            os.close(folder)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into errors with a cure.

    Raises
    ------
    CacheError
        With code ``ledger.busy``, ``ledger.damaged``, ``disk.full`` or ``disk.unwritable``.
    """
    try:
        yield
    except FedtlError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
        raise _explain(path, error) from error


def _explain(path: Path, error: Exception) -> FedtlError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return busy(path)
    if code == sqlite3.SQLITE_FULL:
        return CacheError(
            f"The disk is full: '{path}' could not be written, and nothing was released.",
            next_step="Free some space and ask again.",
            code="disk.full",
        )
    if code in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
    ):
        return CacheError(
            f"The ledger '{path}' cannot be opened or written ({error}).",
            next_step="Check the permissions of the file and of its folder, which must be "
            "writable too.",
            code="disk.unwritable",
        )
    return damaged(path, str(error))


def busy(path: Path) -> CacheError:
    """Say that another process holds the ledger."""
    return CacheError(
        f"Another process is writing to the ledger '{path}' and did not finish in time.",
        next_step="Ask again; if it stays so, look for a process that hangs.",
        code="ledger.busy",
    )


def damaged(path: Path, why: str) -> CacheError:
    """Say that the file cannot be trusted."""
    return CacheError(
        f"The ledger '{path}' is damaged: {why}.",
        next_step="Put back a whole copy of it and count what was released since as spent. "
        "Without one, what these data have spent is not known: do not begin an empty ledger.",
        code="ledger.damaged",
    )


def newer(path: Path, version: int) -> PrivacyError:
    """Say that a later fedtl wrote the file."""
    return PrivacyError(
        f"The ledger '{path}' has version {version}; this fedtl knows versions up to {VERSION} "
        "and only reads it.",
        next_step="Update fedtl at this site; the ledger must not be charged by an older one.",
        code="ledger.newer",
    )
