"""A budget's period ends when its days have passed, not when somebody sets the clock."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ledgers import DATA, EVENT, request

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Budget, Ledger
from fedtl.privacy.ledger.clock import Reading, agreed, from_text, read_clock, to_text

DAY = 86400.0
START = 1.8e9
ONE = Budget(epsilon_of(EVENT, 1e-5), 1e-5, period_days=30)
"""A budget for one release a month."""


class Machine:
    """A clock that can be set, on a machine that can be started anew."""

    def __init__(self) -> None:
        self.utc, self.boot, self.uptime = START, "boot-1", 100.0

    def __call__(self) -> Reading:
        return Reading(self.utc, self.boot, self.uptime)

    def wait(self, days: float) -> None:
        self.utc += days * DAY
        self.uptime += days * DAY

    def restart(self) -> None:
        self.boot, self.uptime = f"{self.boot}+", 5.0


@pytest.fixture
def machine() -> Machine:
    return Machine()


def charges(ledger: Ledger, round_: int) -> bool:
    """Say whether one more release is within the budget."""
    try:
        return bool(ledger.charge(request(round_), DATA, EVENT, budget=ONE))
    except PrivacyError as error:
        if error.code != "privacy.budget":
            raise
        return False


def test_a_period_ends_by_waiting(tmp_path: Path, machine: Machine) -> None:
    with Ledger.open(tmp_path / "l", clock=machine) as ledger:
        assert charges(ledger, 1)
        machine.wait(29)
        assert not charges(ledger, 2)
        machine.wait(1.1)
        assert charges(ledger, 3)
        assert not charges(ledger, 4)
        assert [e.clock for e in ledger.entries()] == ["", ""]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_set_forward_and_back_gains_no_second_period(
    tmp_path: Path, machine: Machine, restarts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While it runs, the machine's uptime tells; over a restart, only what comes after does."""
    with (
        caplog.at_level(logging.WARNING, "fedtl"),
        Ledger.open(tmp_path / "l", clock=machine) as ledger,
    ):
        assert charges(ledger, 1)
        machine.utc += 31 * DAY
        if restarts:
            machine.restart()
        assert charges(ledger, 2) == restarts
        machine.utc -= 31 * DAY
        assert not charges(ledger, 3)
        machine.wait(29)
        assert not charges(ledger, 4)
        machine.restart()
        machine.utc += 31 * DAY
        machine.utc -= 31 * DAY
        assert not charges(ledger, 5)
    assert ("was set ahead" in caplog.text) != restarts


def test_an_earlier_time_is_recorded_as_the_last_one_flagged_and_warned_of_once(
    tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "fedtl"),
        Ledger.open(tmp_path / "l", clock=machine) as ledger,
    ):
        for round_, moved in enumerate((0.0, -0.3, -5 * DAY, 1 * DAY)):
            machine.utc += moved
            ledger.charge(request(round_), DATA, EVENT)
        entries = ledger.entries()
    assert [e.time for e in entries] == [START] * 4
    assert [e.clock for e in entries] == ["", "", "back", "back"]
    assert caplog.text.count("was set back") == 1


def test_a_clock_set_back_does_not_shorten_the_period(tmp_path: Path, machine: Machine) -> None:
    with Ledger.open(tmp_path / "l", clock=machine) as ledger:
        machine.utc += 10 * DAY
        assert charges(ledger, 1)
        machine.utc -= 10 * DAY
        machine.wait(35)  # thirty days have not passed since, as far as the clock can tell
        assert not charges(ledger, 2)
        machine.wait(5.1)
        assert charges(ledger, 3)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Reading(START + 50, "a", 150), (START + 50, "")),
        (Reading(START + 80, "a", 150), (START + 50, "")),  # within what corrections do
        (Reading(START + 800, "a", 150), (START + 50, "ahead")),
        (Reading(START + 800, "b", 3), (START + 800, "")),
        (Reading(START + 800), (START + 800, "")),
        (Reading(START - 0.5, "a", 150), (START, "")),
        (Reading(START - 50, "b", 3), (START, "back")),
    ],
)
def test_agreed_time(now: Reading, expected: tuple[float, str]) -> None:
    assert agreed(Reading(START, "a", 100), now) == expected
    assert agreed(None, now) == (now.utc, "")


def test_this_machines_clock_goes_on() -> None:
    first, second = read_clock(), read_clock()
    assert second.utc >= first.utc
    assert (second.boot, second.uptime >= first.uptime) == (first.boot, True)


@pytest.mark.parametrize("bad", ["", "2026-01-01T00:00:00", "2026-01-01T00:00:00+02:00", "soon"])
def test_times_are_utc_and_come_back(bad: str) -> None:
    assert from_text(to_text(START + 0.9996)) == START + 0.999
    with pytest.raises(ValueError, match=r"isoformat|not in UTC"):
        from_text(bad)
