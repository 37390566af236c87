"""Entries of the ledger and the chain that holds them together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fedtl.errors import PrivacyError
from fedtl.privacy.events import ComposedEvent, Event, from_json, to_json
from fedtl.privacy.ledger.clock import Reading, from_text, to_text

CHARGE, REPLY = "charge", "reply"
MAX_TEXT = 200

Row = tuple[int, str, str]
"""Number, content and hash of an entry, as they are stored."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Which request a release answers; the same key is the same request.

    Attributes
    ----------
    run : str
        Identity of the run, the same after a restart.
    round : int
        Round of the run.
    message : str
        Kind of message, such as ``"train"``.
    site : str
        Name of the site.
    content : str
        Digest of what was asked. Another question is another request, and is charged as one.
    """

    run: str
    round: int
    message: str
    site: str
    content: str = ""

    def __post_init__(self) -> None:
        texts = (self.run, self.message, self.site, self.content)
        if not (isinstance(self.round, int) and all(isinstance(t, str) for t in texts)):
            raise PrivacyError(
                f"{self} is no key of a request.", next_step="Give texts and a whole round."
            )
        if max(map(len, texts)) > MAX_TEXT:
            raise PrivacyError(
                f"The key of a request has a text of {max(map(len, texts))} characters.",
                next_step=f"Use names of at most {MAX_TEXT} characters, and a digest as content.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the ledger: a release that was paid for, or a reply that was stored.

    Attributes
    ----------
    number : int
        From 1, without gaps.
    kind : {"charge", "reply"}
        A charge says what is released; a reply, that it may have left the site from here on.
    time : float
        Seconds since 1970, never before the entry before (see :mod:`fedtl.privacy.ledger.clock`).
    boot, uptime : str and float
        Start of the machine, and seconds since then.
    clock : str
        Empty, ``"back"`` or ``"ahead"``: what was wrong with the clock.
    request : RequestKey
        What it answers.
    dataset, unit : str
        Fingerprint and unit of the data set charged.
    event : Event
        What was released; nothing in a reply.
    note : str
        For people, e.g. the plan in words.
    reply : str
        SHA-256 (hex) of the stored reply; empty in a charge.
    hash : str
        SHA-256 (hex) over the hash of the entry before and this entry's content.
    """

    number: int
    kind: str
    time: float
    boot: str
    uptime: float
    clock: str
    request: RequestKey
    dataset: str
    unit: str
    event: Event
    note: str = ""
    reply: str = ""
    hash: str = ""

    @property
    def reading(self) -> Reading:
        """The clocks when it was written."""
        return Reading(self.time, self.boot, self.uptime)

    def content(self) -> str:
        """Return everything but number and hash as canonical JSON."""
        plain = {
            "kind": self.kind,
            "time": to_text(self.time),
            "boot": self.boot,
            "uptime": self.uptime,
            "clock": self.clock,
            "request": {name: getattr(self.request, name) for name in RequestKey.__slots__},
            "dataset": self.dataset,
            "unit": self.unit,
            "event": json.loads(to_json(self.event)),
            "note": self.note,
            "reply": self.reply,
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    @classmethod
    def read(cls, row: Row) -> Entry:
        """Read a stored entry; its hash is not looked at.

        Raises
        ------
        ValueError, KeyError, TypeError, PrivacyError
            The content is no entry.
        """
        number, content, own = row
        plain = json.loads(content)
        if plain["kind"] not in (CHARGE, REPLY):
            raise ValueError(plain["kind"])
        event = json.dumps(plain.pop("event"))
        return cls(
            number=number,
            hash=own,
            time=from_text(plain.pop("time")),
            request=RequestKey(**plain.pop("request")),
            event=ComposedEvent(()) if plain["kind"] == REPLY else from_json(event),
            **plain,
        )


@dataclass(frozen=True, slots=True)
class Charged:
    """A release that is paid for.

    Attributes
    ----------
    entry : Entry
        The charge.
    releases : int
        Releases of this run so far, this one included.
    repeated : bool
        Whether it had been paid for before, by the same request.
    """

    entry: Entry
    releases: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """A ledger that was found whole: its entries, and the hash of the last one.

    Entries cut off at the end together with SQLite's own count of them, or an old copy put in place
    of the file, cannot be seen from inside: keep the two numbers elsewhere and compare.
    """

    entries: int
    hash: str


def genesis(salt: bytes) -> str:
    """Return the hash that the first entry of a ledger continues."""
    return hashlib.sha256(b"fedtl ledger " + salt).hexdigest()


def hash_of(previous: str, number: int, content: str) -> str:
    """Return the hash of an entry after one with the hash ``previous``."""
    return hashlib.sha256(f"{previous} {number} {content}".encode()).hexdigest()


def walk(rows: Iterable[Row], number: int, previous: str) -> Iterator[Entry]:
    """Read entries and check that they continue the chain after entry ``number``.

    Raises
    ------
    PrivacyError
        With code ``ledger.broken``; it names the first bad entry.
    """
    for row in rows:
        number += 1
        try:
            entry = Entry.read(row)
            whole = row[0] == number and row[2] == hash_of(previous, number, row[1])
        except (ValueError, KeyError, TypeError, AttributeError, PrivacyError) as error:
            raise broken(number, "it cannot be read") from error
        if not whole:
            raise broken(number, "its hash is wrong" if row[0] == number else "it is missing")
        previous = row[2]
        yield entry


def broken(number: int, why: str) -> PrivacyError:
    """Say which entry breaks the chain."""
    return PrivacyError(
        f"Entry {number} of the ledger was changed after it was written: {why}.",
        next_step="Nothing can be charged to this ledger. Put back a copy that `fedtl ledger "
        "verify` calls whole, and count what was released since as spent.",
        code="ledger.broken",
    )
