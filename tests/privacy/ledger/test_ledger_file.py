"""A ledger that was tampered with, cut or written by a later version is refused, never replaced."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import DATA, EVENT, filled, request

from fedtl.errors import CacheError, FedtlError, PrivacyError
from fedtl.privacy.ledger import Ledger


def forge(path: Path, sql: str, *values: Any) -> None:
    """Change a ledger behind its back: take the triggers away, and put them back."""
    database = sqlite3.connect(path)
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    kept = triggers.fetchall()
    for name, _ in kept:
        database.execute(f"DROP TRIGGER {name}")
    database.execute(sql, values)
    for _, again in kept:
        database.execute(again)
    database.commit()
    database.close()


def verify(path: Path) -> str:
    """Return why a ledger is not whole; both ways of opening it must say so."""
    with pytest.raises(FedtlError) as error, Ledger.open(path, read_only=True) as ledger:
        ledger.verify()
    assert error.value.next_step
    return str(error.value)


def test_every_byte_of_an_entry_is_held_by_the_chain(tmp_path: Path) -> None:
    path, forged = filled(tmp_path / "l"), tmp_path / "forged"
    database = sqlite3.connect(path)
    ((content, own),) = database.execute("SELECT content, hash FROM entries WHERE number = 2")
    database.close()
    for column, text in (("content", content), ("hash", own)):
        for at in range(len(text)):
            shutil.copy(path, forged)
            other = "8" if text[at] == "7" else "7"
            changed = text[:at] + other + text[at + 1 :]
            forge(forged, f"UPDATE entries SET {column} = ? WHERE number = 2", changed)
            assert "Entry 2 of the ledger was changed" in verify(forged), f"{column} at {at}"


@pytest.mark.parametrize(
    ("sql", "entry"),
    [
        ("DELETE FROM entries WHERE number = 1", 1),
        ("DELETE FROM entries WHERE number = 2", 2),
        ("DELETE FROM entries WHERE number = 3", 3),
        ("UPDATE entries SET number = 7 WHERE number = 3", 3),
        ("UPDATE entries SET content = x'00ff' WHERE number = 2", 2),
        ("UPDATE entries SET content = '[]' WHERE number = 1", 1),
        ("INSERT INTO entries SELECT 4, content, hash FROM entries WHERE number = 3", 4),
        ("UPDATE about SET salt = x'00'", 1),
        ("UPDATE datasets SET unit = 'group'", 1),
        ("UPDATE datasets SET members = zeroblob(80)", 1),
        ("DELETE FROM datasets", 1),
        ("UPDATE replies SET reply = x'00'", 3),
        ("DELETE FROM replies", 3),
    ],
)
def test_the_first_bad_entry_is_named(tmp_path: Path, sql: str, entry: int) -> None:
    path = filled(tmp_path / "l")
    forge(path, sql)
    assert f"Entry {entry} of the ledger was changed" in verify(path)


def test_a_ledger_whose_chain_is_broken_is_not_charged(tmp_path: Path) -> None:
    path = filled(tmp_path / "l")
    with Ledger.open(path) as before:
        forge(path, "DELETE FROM entries WHERE number = 3")
        with pytest.raises(PrivacyError) as error:
            before.charge(request(9), DATA, EVENT)
        assert error.value.code == "ledger.broken"
    with pytest.raises(PrivacyError) as error:
        Ledger.open(path)
    assert error.value.code == "ledger.broken"


def test_a_lost_reply_is_not_computed_again(tmp_path: Path) -> None:
    """It may have left the site, and another one would be a second release."""
    path = filled(tmp_path / "l")
    forge(path, "DELETE FROM replies")
    with Ledger.open(path) as ledger, pytest.raises(PrivacyError) as error:
        ledger.reply_of(request(2))
    assert error.value.code == "ledger.broken"


def test_a_ledger_without_its_triggers_is_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "l")
    database = sqlite3.connect(path)
    database.execute("DROP TRIGGER entries_delete")
    database.close()
    assert "is damaged: its tables or the triggers" in verify(path)


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_ledger_is_never_taken_for_a_shorter_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "l"
    if not path.exists():
        filled(path)
    data, cut = path.read_bytes(), tmp_path / "cut"
    kept = int(share * len(data))
    cut.write_bytes(data[:kept])
    if not any(data[kept:]):  # SQLite reads zeros behind the end
        return
    verify(cut)
    with pytest.raises(FedtlError):
        Ledger.open(cut)


@settings(max_examples=150)
@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_changes_nothing(tmp_path: Path, at: int, xor: int) -> None:
    path = tmp_path / "l"
    if not path.exists():
        filled(path, 6)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= xor
    (tmp_path / "flipped").write_bytes(data)
    with Ledger.open(path, read_only=True) as whole:
        entries, verified = whole.entries(), whole.verify()
    with (
        contextlib.suppress(FedtlError),
        Ledger.open(tmp_path / "flipped", read_only=True) as ledger,
    ):
        assert ledger.verify() == verified
        assert ledger.entries() == entries


@pytest.mark.parametrize("change", ["", "DROP TABLE about", "ALTER TABLE entries ADD more TEXT"])
def test_a_newer_version_is_read_if_it_can_be_and_never_charged(
    tmp_path: Path, change: str
) -> None:
    path = filled(tmp_path / "l")
    database = sqlite3.connect(path)
    database.executescript(f"{change}; PRAGMA user_version = 2")
    database.close()
    before = path.read_bytes()

    def read_and_charge() -> None:
        with Ledger.open(path) as ledger:
            assert len(ledger.entries()) == 3
            with pytest.raises(PrivacyError, match="has version 2"):
                ledger.keep_reply(request(2), b"")
            ledger.charge(request(9), DATA, EVENT)

    with pytest.raises(PrivacyError, match="has version 2") as error:
        read_and_charge()
    assert error.value.code == "ledger.newer"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough for one" * 9])
def test_what_is_no_ledger_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l").write_bytes(content)
    with pytest.raises(CacheError, match="is damaged") as error:
        Ledger.open(tmp_path / "l")
    assert error.value.code == "ledger.damaged"
    assert (tmp_path / "l").read_bytes() == content


def test_places_where_no_ledger_can_be_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path, read_only, code in (
        (tmp_path / "file" / "l", False, "disk.unwritable"),
        (tmp_path, False, "ledger.missing"),
        (tmp_path / "none", True, "ledger.missing"),
    ):
        with pytest.raises(CacheError) as error:
            Ledger.open(path, read_only=read_only)
        assert error.value.code == code
    assert not (tmp_path / "none").exists()


def test_a_full_disk_refuses_the_charge_and_keeps_what_was_there(tmp_path: Path) -> None:
    """A limit on SQLite's pages is what a full disk looks like to it."""
    path = filled(tmp_path / "l")
    with Ledger.open(path) as ledger:
        verified = ledger.verify()
        ledger._store._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(CacheError, match="disk is full") as error:
            ledger.keep_reply(request(1), b"x" * 100_000)
        assert error.value.code == "disk.full"
        assert ledger.verify() == verified
