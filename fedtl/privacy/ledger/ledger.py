"""The ledger itself: charged before a release, append-only, safe to be killed at any instant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import ComposedEvent, Event
from fedtl.privacy.ledger.clock import Reading, read_clock
from fedtl.privacy.ledger.dataset import DataSet
from fedtl.privacy.ledger.entry import (
    CHARGE,
    MAX_TEXT,
    REPLY,
    Charged,
    Entry,
    RequestKey,
    Verified,
)
from fedtl.privacy.ledger.file import VERSION
from fedtl.privacy.ledger.spend import REFERENCE_DELTA, Budget, compose, count_of, worst_of
from fedtl.privacy.ledger.store import Store, sha256


class Ledger:
    """The privacy that one site has spent: one SQLite file, append-only, hash-chained.

    Law: when :meth:`charge` has returned, the charge survives a kill and a loss of power, and no
    later look at the ledger counts less than all charges that returned. One file belongs to one
    site; any number of processes and threads may use it. A file that is damaged, was tampered with
    or is missing is never replaced by an empty one, except that :meth:`open` makes the first one:
    whoever keeps other state of a site must see to it that its ledger is there.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from fedtl.privacy.events import GaussianEvent
    >>> data = DataSet.of(np.zeros((1, 32), np.uint8))
    >>> key = RequestKey("run", 1, "train", "north")
    >>> with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "l") as ledger:
    ...     first = ledger.charge(key, data, GaussianEvent(2.0), budget=Budget(8, 1e-5))
    ...     again = ledger.charge(key, data, GaussianEvent(2.0), budget=Budget(8, 1e-5))
    ...     ledger.spend(data), again.repeated
    (GaussianEvent(noise_multiplier=2.0, count=1), True)
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        durable: bool = True,
        timeout: float = 10.0,
        hold: bool = True,
        clock: Callable[[], Reading] = read_clock,
    ) -> Ledger:
        """Open a ledger; make it where there is none, unless ``read_only``.

        Parameters
        ----------
        durable : bool
            False leaves the flushing to the system: for simulations, whose noise is nobody's.
        timeout : float
            Seconds to wait for another process that writes.
        hold : bool
            False lets go of the file after every use: a process has about a thousand to hold.
        clock : callable
            Reads the clocks.

        Raises
        ------
        CacheError
            The file is damaged, missing, busy or cannot be written.
        PrivacyError
            With code ``ledger.broken``: an entry was changed. Found here unless ``read_only``,
            then by whatever looks at the entries.
        """
        store = Store(
            path, read_only=read_only, durable=durable, timeout=timeout, hold=hold, clock=clock
        )
        if not read_only and store.version <= VERSION:
            try:
                with store.reading():
                    pass
            except BaseException:
                store.close()
                raise
        return cls(store)

    @property
    def path(self) -> Path:
        """The file."""
        return self._store.path

    @property
    def salt(self) -> bytes:
        """What group ids are hashed with; see :meth:`DataSet.of`."""
        return self._store.salt

    def close(self) -> None:
        """Let go of the file; the next use opens it again, and never makes a new one."""
        self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def charge(
        self,
        request: RequestKey,
        dataset: DataSet,
        event: Event,
        *,
        budget: Budget | None = None,
        most_releases: int | None = None,
        note: str = "",
    ) -> Charged:
        """Pay for a release before it is made; a request that was paid for is not charged again.

        Parameters
        ----------
        dataset : DataSet
            What the release is computed from.
        event : Event
            What is released.
        budget : Budget, optional
            Refuse if the data set would have spent more.
        most_releases : int, optional
            Refuse if the run would have made more releases of this kind of message: its plan covers
            no more.
        note : str
            For people; at most 200 characters are kept.

        Raises
        ------
        PrivacyError
            With code ``privacy.budget`` or ``privacy.spent``, and then nothing was written; with
            ``ledger.newer`` or ``ledger.broken``.
        CacheError
            Another process holds the file, or it cannot be written.
        """
        with self._store.writing():
            if (paid := self._store.memory.paid(request, dataset.fingerprint, event)) is not None:
                return Charged(paid, self._made(request), repeated=True)
            before = self._made(request)
            after = before + count_of(event)
            if most_releases is not None and after > most_releases:
                raise PrivacyError(
                    f"{before} of {most_releases} releases are spent and {after - before} more are "
                    "asked for.",
                    next_step="Start a new run with a plan that covers more rounds.",
                    code="privacy.spent",
                )
            entry = self._store.next(CHARGE, request, dataset, event, note=note[:MAX_TEXT])
            if budget is not None:
                self._check_budget(budget, dataset, event, entry)
            self._store.add_dataset(dataset)
            self._store.append(entry)
        written = self._store.memory.paid(request, dataset.fingerprint, event)
        return Charged(written or entry, after, repeated=False)

    def keep_reply(self, request: RequestKey, reply: bytes) -> bytes:
        """Store the reply to a request that was paid for; hand out what this returns, nothing else.

        Returns
        -------
        bytes
            ``reply``, or the one that was stored before for the same request.

        Raises
        ------
        PrivacyError
            With code ``privacy.uncharged``: nobody paid for it.
        """
        with self._store.writing():
            if (kept := self._store.kept(request)) is not None:
                return kept
            paid = self._store.memory.last_paid(request)
            if paid is None:
                raise PrivacyError(
                    f"A reply to {request} was not paid for.",
                    next_step="Charge the request before its reply is computed.",
                    code="privacy.uncharged",
                )
            entry = self._store.next(REPLY, request, None, ComposedEvent(()))
            entry = replace(entry, dataset=paid.dataset, unit=paid.unit, reply=sha256(reply))
            self._store.append(entry, reply=reply)
        return reply

    def reply_of(self, request: RequestKey) -> bytes | None:
        """Return the stored reply to a request, None if there is none.

        Raises
        ------
        PrivacyError
            With code ``ledger.broken``: it is gone or was changed. It may have left, so it must not
            be computed again.
        """
        with self._store.reading():
            return self._store.kept(request)

    def releases(self, run: str, message: str) -> int:
        """Return the number of releases that were charged to a run for one kind of message."""
        with self._store.reading():
            return self._store.memory.releases(run, message)

    def spend(
        self,
        dataset: DataSet,
        *,
        delta: float = REFERENCE_DELTA,
        since: float | None = None,
        upto: int | None = None,
    ) -> Event:
        """Return what the worst record (or group) of a data set has spent, over all data sets.

        Parameters
        ----------
        dataset : DataSet
            Any data set, also one that was never charged.
        delta : float
            Which record is worst, where that is not plain, is decided by epsilon at this delta.
        since : float, optional
            Count charges from this time on, in seconds since 1970.
        upto : int, optional
            Count charges up to this entry.
        """
        with self._store.reading():
            parts = self._store.memory.spent(dataset, self._store.dataset, since=since, upto=upto)
        return worst_of([compose(events) for events in parts], delta)

    def datasets(self) -> list[DataSet]:
        """Return all data sets that were ever charged, in the order of their first charge."""
        with self._store.reading():
            return [
                self._store.dataset(fingerprint) for fingerprint in self._store.memory.by_dataset
            ]

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, checked against the chain."""
        with self._store.reading():
            return tuple(self._store.memory.entries)

    def verify(self) -> Verified:
        """Walk the whole chain anew, with data sets and stored replies.

        Raises
        ------
        PrivacyError
            With code ``ledger.broken``, naming the first bad entry; ``ledger.newer`` if a later
            version wrote them.
        """
        with self._store.reading(anew=True):
            for entry in self._store.memory.entries:
                if entry.kind == CHARGE:
                    self._store.dataset(entry.dataset)
                else:
                    self._store.kept(entry.request)
            return Verified(self._store.memory.number, self._store.memory.hash)

    def export(self) -> Iterator[str]:
        """Yield every entry as one JSON object on a line, with number and hash."""
        for entry in self.entries():
            plain = json.loads(entry.content())
            yield json.dumps({"number": entry.number, **plain, "hash": entry.hash})

    def _made(self, request: RequestKey) -> int:
        return self._store.memory.releases(request.run, request.message)

    def _check_budget(self, budget: Budget, dataset: DataSet, event: Event, entry: Entry) -> None:
        """Refuse what would exceed the budget; a clock set back makes the period longer."""
        since = budget.since(min(entry.time, self._store.clock().utc))
        parts = self._store.memory.spent(dataset, self._store.dataset, since=since) or [[]]
        after = worst_of([compose([*events, event]) for events in parts], budget.delta)
        if (epsilon := epsilon_of(after, budget.delta)) <= budget.epsilon:
            return
        days = "" if budget.period_days is None else f" in {budget.period_days:g} days"
        raise PrivacyError(
            f"The data set {dataset.fingerprint[:12]} would have spent epsilon {epsilon:.4g} at "
            f"delta {budget.delta:g}{days}, and its budget is {budget.epsilon:g}.",
            next_step="See `fedtl ledger show`; ask for less, or raise the budget in the site's "
            "policy.",
            code="privacy.budget",
        )
