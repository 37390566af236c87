"""Entries in and out of the file: one transaction at a time, each continuing the chain."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fedtl.errors import CacheError, FedtlError, PrivacyError
from fedtl.privacy.events import Event
from fedtl.privacy.ledger.clock import Reading, agreed, from_text, to_text
from fedtl.privacy.ledger.dataset import DataSet
from fedtl.privacy.ledger.entry import Entry, RequestKey, Row, broken, hash_of
from fedtl.privacy.ledger.file import VERSION, connect, damaged, explained, newer
from fedtl.privacy.ledger.memory import Memory

_log = logging.getLogger(__name__)


class Store:
    """An open ledger file, and what is known of it.

    Within :meth:`reading` and :meth:`writing`, :attr:`memory` holds all that the file holds.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        durable: bool,
        timeout: float,
        hold: bool,
        clock: Callable[[], Reading],
    ) -> None:
        self.path = path
        self.clock, self._read_only, self._hold = clock, read_only, hold
        self._lock = threading.RLock()
        self._held: sqlite3.Connection | None = None
        self._warned: set[str] = set()
        self._appended: list[Row] = []
        self._connect = partial(
            connect, path, read_only=read_only, durable=durable, timeout=timeout
        )
        self._held, self.version = self._connect(make=not read_only)
        try:
            self.salt: bytes = self._read_salt()
            self.memory = Memory(self.salt)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._held is not None:
                self._held.close()
            self._held = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._held is None:  # what is known of the file stays known, and is compared with it
            self._held, self.version = self._connect(make=False)
        return self._held

    @contextmanager
    def reading(self, *, anew: bool = False) -> Iterator[None]:
        """Know what the file holds; ``anew`` reads and checks all of it again."""
        with self._lock:
            if anew:
                self.memory = Memory(self.salt)
            try:
                with explained(self.path), self._snapshot():
                    self._catch_up()
                    yield
            except FedtlError as error:
                raise self._in_a_newer(error) from error
            finally:
                self._after_use()

    def _in_a_newer(self, error: FedtlError) -> FedtlError:
        """Return an error, or for a later version's file the likely reason for it."""
        return newer(self.path, self.version) if self.version > VERSION else error

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Show one state of the file, whatever others append meanwhile."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the file for one transaction: all of it is written, or nothing."""
        with self._lock:
            self._check_writable()
            try:
                with explained(self.path), self._transaction():
                    yield
                self.memory.learn(self._appended)
            finally:
                self._appended = []
                self._after_use()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._catch_up()
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _after_use(self) -> None:
        if not self._hold:
            self.close()

    def _read_salt(self) -> bytes:
        try:
            with explained(self.path):
                rows = self._db.execute("SELECT salt FROM about").fetchall()
        except CacheError as error:
            raise self._in_a_newer(error) from error
        if len(rows) != 1 or not isinstance(rows[0][0], bytes):
            raise damaged(self.path, "its salt is missing")
        salt: bytes = rows[0][0]
        return salt

    def _check_writable(self) -> None:
        if self.version > VERSION:
            raise newer(self.path, self.version)
        if self._read_only:
            raise PrivacyError(
                f"The ledger '{self.path}' was opened to be read only.",
                next_step="Open it without read_only to charge it.",
                code="ledger.read-only",
            )

    def _catch_up(self) -> None:
        """Read what was appended since the last look, by whomever, and check it."""
        last = self.memory.last
        rows = self._db.execute(
            "SELECT number, content, hash FROM entries WHERE number >= ? ORDER BY number",
            (self.memory.number,),
        ).fetchall()
        if last is not None and (not rows or rows[0] != self.memory.row):
            raise broken(last.number, "it is not what was read before")
        self.memory.learn(rows[1:] if last is not None else rows)
        (most,) = self._db.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'"
        ).fetchone()
        if most != self.memory.number:
            raise broken(self.memory.number + 1, "it is missing at the end")

    def next(
        self,
        kind: str,
        request: RequestKey,
        dataset: DataSet | None,
        event: Event,
        *,
        note: str = "",
    ) -> Entry:
        """Return the entry that comes next, with the ledger's time; nothing is written."""
        last = self.memory.last
        now = self.clock()
        time, wrong = agreed(last.reading if last else None, now)
        if wrong and wrong not in self._warned:
            self._warned.add(wrong)
            _log.warning(
                "The clock of this machine was set %s: it says %s, the ledger's time is %s. Set "
                "the clock right; budget periods follow the ledger's time.",
                wrong,
                to_text(now.utc),
                to_text(time),
            )
        return Entry(
            number=self.memory.number + 1,
            kind=kind,
            time=from_text(to_text(time)),
            boot=now.boot,
            uptime=round(now.uptime, 3),
            clock=wrong,
            request=request,
            dataset="" if dataset is None else dataset.fingerprint,
            unit="" if dataset is None else dataset.unit,
            event=event,
            note=note,
        )

    def add_dataset(self, dataset: DataSet) -> None:
        """Write a data set unless it is there."""
        self._db.execute(
            "INSERT OR IGNORE INTO datasets VALUES (?, ?, ?)",
            (dataset.fingerprint, dataset.unit, dataset.to_bytes()),
        )

    def append(self, entry: Entry, *, reply: bytes | None = None) -> None:
        """Write an entry, and the reply it stands for."""
        content = entry.content()
        own = hash_of(self.memory.hash, entry.number, content)
        row = entry.number, content, own
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?)", row)
        self._appended.append(row)
        if reply is not None:
            self._db.execute("INSERT INTO replies VALUES (?, ?)", (entry.number, reply))

    def dataset(self, fingerprint: str) -> DataSet:
        """Return a data set that was charged; refuse it if it was changed."""
        row = self._db.execute(
            "SELECT unit, members FROM datasets WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        try:
            dataset = DataSet.from_bytes(*row)
        except (TypeError, ValueError) as error:
            raise self._first_charge_broken(fingerprint, "is missing or unreadable") from error
        if dataset.fingerprint != fingerprint:
            raise self._first_charge_broken(fingerprint, "has other members")
        return dataset

    def _first_charge_broken(self, fingerprint: str, why: str) -> PrivacyError:
        first = self.memory.by_dataset[fingerprint][0].number
        return broken(first, f"its data set {fingerprint[:12]} {why}")

    def kept(self, request: RequestKey) -> bytes | None:
        """Return the stored reply to a request; refuse it if it is gone or was changed."""
        entry = self.memory.answered(request)
        if entry is None:
            return None
        row = self._db.execute(
            "SELECT reply FROM replies WHERE number = ?", (entry.number,)
        ).fetchone()
        if row is None or not isinstance(row[0], bytes) or sha256(row[0]) != entry.reply:
            raise broken(entry.number, "its stored reply is gone or is another one")
        reply: bytes = row[0]
        return reply


def sha256(data: bytes) -> str:
    """Return the SHA-256 (hex) of bytes."""
    return hashlib.sha256(data).hexdigest()
