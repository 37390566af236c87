"""What a process knows of the ledger: every entry it has read and checked, and what follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from fedtl.privacy.events import Event
from fedtl.privacy.ledger.dataset import DataSet
from fedtl.privacy.ledger.entry import CHARGE, Entry, RequestKey, Row, genesis, walk
from fedtl.privacy.ledger.spend import count_of, signatures


class Memory:
    """The entries so far, by what is asked of them.

    Attributes
    ----------
    entries : list of Entry
        All of them, in order.
    by_dataset : dict of str to list of Entry
        Fingerprint to charges, in the order of first charges.
    row : Row
        The last entry as it is stored.
    """

    def __init__(self, salt: bytes) -> None:
        self.entries: list[Entry] = []
        self.by_dataset: dict[str, list[Entry]] = {}
        self.row: Row = (0, "", "")
        self._genesis = genesis(salt)
        self._paid: dict[RequestKey, list[Entry]] = {}
        self._answered: dict[RequestKey, Entry] = {}
        self._runs: Counter[tuple[str, str]] = Counter()
        self._signatures: dict[tuple[str, int], list[frozenset[str]]] = {}

    @property
    def last(self) -> Entry | None:
        """The last entry."""
        return self.entries[-1] if self.entries else None

    @property
    def number(self) -> int:
        """Number of the last entry; 0 without any."""
        return self.entries[-1].number if self.entries else 0

    @property
    def hash(self) -> str:
        """Hash that the next entry continues."""
        return self.entries[-1].hash if self.entries else self._genesis

    def learn(self, rows: Iterable[Row]) -> None:
        """Take in the entries that follow, after checking that they continue the chain."""
        kept = list(rows)
        for row, entry in zip(kept, walk(kept, self.number, self.hash), strict=False):
            self.entries.append(entry)
            self.row = row
            if entry.kind == CHARGE:
                self._paid.setdefault(entry.request, []).append(entry)
                self.by_dataset.setdefault(entry.dataset, []).append(entry)
                self._runs[entry.request.run, entry.request.message] += count_of(entry.event)
            else:
                self._answered.setdefault(entry.request, entry)

    def paid(self, request: RequestKey, dataset: str, event: Event) -> Entry | None:
        """Return the charge of this very release, if there is one."""
        for entry in self._paid.get(request, ()):
            if entry.dataset == dataset and entry.event == event:
                return entry
        return None

    def last_paid(self, request: RequestKey) -> Entry | None:
        """Return the last charge of a request, if there is one."""
        return self._paid.get(request, [None])[-1]

    def answered(self, request: RequestKey) -> Entry | None:
        """Return the entry of a request's stored reply, if there is one."""
        return self._answered.get(request)

    def releases(self, run: str, message: str) -> int:
        """Return the releases that were charged to a run for one kind of message."""
        return self._runs[run, message]

    def spent(
        self,
        dataset: DataSet,
        load: Callable[[str], DataSet],
        *,
        since: float | None = None,
        upto: int | None = None,
    ) -> list[list[Event]]:
        """Return the events of the units that may be the worst; empty if none was charged."""
        key = dataset.fingerprint, len(self.by_dataset)
        if key not in self._signatures:
            charged = {name: load(name) for name in self.by_dataset}
            self._signatures[key] = signatures(dataset, charged)
        return [
            [
                entry.event
                for name in sorted(one)
                for entry in self.by_dataset[name]
                if (since is None or entry.time >= since) and (upto is None or entry.number <= upto)
            ]
            for one in self._signatures[key]
        ]
