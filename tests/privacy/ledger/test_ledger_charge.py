"""A release is paid for once, before it is made, and not at all beyond the budget."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from ledgers import DATA, EVENT, dataset, filled, request

from fedtl.errors import CacheError, PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent, PoissonGaussianEvent, releases_of
from fedtl.privacy.ledger import Budget, Ledger, RequestKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


def test_the_same_request_is_one_entry_and_another_question_is_another(path: Path) -> None:
    with Ledger.open(path) as ledger:
        first = ledger.charge(request(), DATA, EVENT)
        again = ledger.charge(request(), DATA, EVENT)
        assert (first.repeated, again.repeated, again.releases) == (False, True, 1)
        assert again.entry == first.entry
        assert not ledger.charge(request(content="other"), DATA, EVENT).repeated
        assert not ledger.charge(request(run="run-2"), DATA, EVENT).repeated
        assert [e.request for e in ledger.entries()] == [
            *(request(), request(content="other"), request(run="run-2"))
        ]
        assert (ledger.releases("run-1", "train"), ledger.releases("run-2", "train")) == (2, 1)


def test_a_repeat_about_other_records_or_with_less_noise_is_paid_for(path: Path) -> None:
    """Otherwise a folder that grew between two attempts would release its new records for free."""
    with Ledger.open(path) as ledger:
        ledger.charge(request(), DATA, EVENT)
        assert not ledger.charge(request(), dataset(range(6)), EVENT).repeated
        assert not ledger.charge(request(), DATA, GaussianEvent(3.0, 1)).repeated
        assert len(ledger.entries()) == 3


def test_what_was_spent_is_there_after_a_restart(path: Path) -> None:
    for round_ in (1, 2, 3):
        with Ledger.open(path) as ledger:
            ledger.charge(request(round_), DATA, GaussianEvent(4.0, 2))
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.spend(DATA) == GaussianEvent(4.0, 6)
        assert ledger.releases("run-1", "train") == 6


def test_events_of_all_kinds_come_back_as_they_were(path: Path) -> None:
    events = [EVENT, PoissonGaussianEvent(1.5, 0.25, 7)]
    with Ledger.open(path) as ledger:
        for round_, event in enumerate(events):
            ledger.charge(request(round_), DATA, event)
        assert [e.event for e in ledger.entries()] == events
        kinds = {(r.sampling_rate, r.count) for r in releases_of(ledger.spend(DATA))}
        assert kinds == {(1.0, 1), (0.25, 7)}


def test_a_release_beyond_the_budget_is_refused_and_leaves_no_trace(path: Path) -> None:
    budget = Budget(epsilon_of(GaussianEvent(4.0, 3), 1e-5), 1e-5)
    with Ledger.open(path) as ledger:
        for round_ in (1, 2, 3):
            ledger.charge(request(round_), DATA, EVENT, budget=budget)
        before = ledger.verify(), path.read_bytes()
        for later in (request(4), request(1, run="run-2")):
            with pytest.raises(PrivacyError, match="would have spent epsilon") as error:
                ledger.charge(later, DATA, EVENT, budget=budget)
            assert error.value.code == "privacy.budget"
        assert (ledger.verify(), path.read_bytes()) == before
        # what is paid for is not refused, and records that nobody asked about have spent nothing
        assert ledger.charge(request(3), DATA, EVENT, budget=budget).repeated
        ledger.charge(request(4), dataset("abc"), EVENT, budget=budget)


def test_releases_without_noise_never_fit_a_budget(path: Path) -> None:
    with Ledger.open(path) as ledger, pytest.raises(PrivacyError) as error:
        ledger.charge(request(), DATA, GaussianEvent(0.0), budget=Budget(1e9, 1e-5))
    assert error.value.code == "privacy.budget"


def test_a_run_makes_no_more_releases_than_its_plan(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.charge(request(1), DATA, GaussianEvent(4.0, 3), most_releases=5)
        with pytest.raises(PrivacyError) as error:
            ledger.charge(request(2), DATA, GaussianEvent(4.0, 3), most_releases=5)
        assert error.value.code == "privacy.spent"
        assert ledger.charge(request(3), DATA, GaussianEvent(4.0, 2), most_releases=5).releases == 5
        assert ledger.charge(request(1, run="b"), DATA, EVENT, most_releases=5).releases == 1


def test_a_message_delivered_twice_gets_the_stored_reply(path: Path) -> None:
    with Ledger.open(path) as ledger:
        assert ledger.reply_of(request()) is None
        ledger.charge(request(), DATA, EVENT)
        assert ledger.reply_of(request()) is None
        assert ledger.keep_reply(request(), b"first") == b"first"
        # a second computation, in another process or after a crash, is never handed out
        assert ledger.keep_reply(request(), b"second") == b"first"
    with Ledger.open(path) as ledger:
        assert ledger.reply_of(request()) == b"first"
        assert ledger.spend(DATA) == EVENT


def test_a_reply_that_nobody_paid_for_is_not_kept(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(PrivacyError) as error:
            ledger.keep_reply(request(), b"free")
        assert error.value.code == "privacy.uncharged"
        assert ledger.entries() == ()


def test_entries_cannot_be_updated_or_deleted(tmp_path: Path) -> None:
    database = sqlite3.connect(filled(tmp_path / "l"))
    for table in ("entries", "datasets", "about", "replies"):
        column = {"entries": "content", "datasets": "unit", "about": "salt"}.get(table, "reply")
        for sql in (f"UPDATE {table} SET {column} = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(sql)
    database.close()


def test_another_writer_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "l")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Ledger.open(path, timeout=0.05) as ledger:
        with pytest.raises(CacheError, match="Another process is writing") as error:
            ledger.charge(request(9), DATA, EVENT)
        assert error.value.code == "ledger.busy"
        other.execute("ROLLBACK")
        assert ledger.charge(request(9), DATA, EVENT).releases == 3
    other.close()


def test_two_open_ledgers_see_each_others_charges(path: Path) -> None:
    budget = Budget(epsilon_of(GaussianEvent(4.0, 2), 1e-5), 1e-5)
    with Ledger.open(path) as one, Ledger.open(path) as two:
        one.charge(request(1), DATA, EVENT, budget=budget)
        assert two.charge(request(1), DATA, EVENT, budget=budget).repeated
        two.charge(request(2), DATA, EVENT, budget=budget)
        with pytest.raises(PrivacyError):
            one.charge(request(3), DATA, EVENT, budget=budget)
        assert one.verify() == two.verify()


def test_a_closed_ledger_opens_again_but_is_never_made_anew(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.charge(request(), DATA, EVENT)
        ledger.close()
        assert ledger.spend(DATA) == EVENT
        ledger.close()
        path.unlink()
        with pytest.raises(CacheError) as error:
            ledger.charge(request(2), DATA, EVENT)
        assert error.value.code == "ledger.missing"
        assert not path.exists()


def test_export_is_one_json_object_per_entry(tmp_path: Path) -> None:
    with Ledger.open(filled(tmp_path / "l"), read_only=True) as ledger:
        lines = [json.loads(line) for line in ledger.export()]
        assert [(x["number"], x["kind"]) for x in lines] == [
            *((1, "charge"), (2, "charge"), (3, "reply"))
        ]
        assert lines[0]["event"] == {"count": 1, "kind": "gaussian", "noise_multiplier": 4.0}
        assert lines[0]["note"] == "föderiert"
        assert lines[-1]["hash"] == ledger.verify().hash
        with pytest.raises(PrivacyError, match="read only"):
            ledger.charge(request(9), DATA, EVENT)


@pytest.mark.parametrize(
    "values", [(0.0, 1e-5, None), (1.0, 0.0, None), (1.0, 1e-5, 0.0), (float("nan"), 1e-5, None)]
)
def test_a_budget_is_checked_when_it_is_made(values: tuple[float, float, float | None]) -> None:
    with pytest.raises(PrivacyError) as error:
        Budget(*values)
    assert error.value.next_step


def test_a_request_with_endless_texts_is_refused() -> None:
    with pytest.raises(PrivacyError):
        RequestKey("r" * 201, 1, "train", "north")
