"""Time that neither goes back nor runs ahead of the machine: a budget's period depends on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BACK, AHEAD = "back", "ahead"
_BACK_SECONDS, _AHEAD_SECONDS = 1.0, 60.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the clocks say.

    Attributes
    ----------
    utc : float
        Seconds since 1970.
    boot : str
        Which start of the machine ``uptime`` counts from; empty where the system does not tell.
    uptime : float
        Seconds since then, sleep included; nobody can set it.
    """

    utc: float
    boot: str = ""
    uptime: float = 0.0


def read_clock() -> Reading:
    """Read the clocks of this machine."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
        return Reading(time.time(), boot, time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError):
        return Reading(time.time())


def agreed(last: Reading | None, now: Reading) -> tuple[float, str]:
    """Return the time to record after ``last``, and what is wrong with the clock.

    Time goes on by what the clock says, but never back, and within one start of the machine never
    by more than its uptime. So a clock set forward and back again does not end a period early. A
    clock set forward while the machine is off cannot be told from a machine that was off.

    Returns
    -------
    tuple of float and str
        Seconds since 1970; ``"back"`` (more than a second), ``"ahead"`` (more than a minute) or an
        empty text.

    Examples
    --------
    >>> agreed(Reading(1000.0), Reading(900.0))
    (1000.0, 'back')
    >>> agreed(Reading(1000.0, "a", 50.0), Reading(9000.0, "a", 60.0))
    (1010.0, 'ahead')
    """
    if last is None:
        return now.utc, ""
    elapsed = now.utc - last.utc
    if elapsed < 0:
        return last.utc, BACK if elapsed < -_BACK_SECONDS else ""
    if now.boot and now.boot == last.boot and elapsed > (up := max(now.uptime - last.uptime, 0.0)):
        return last.utc + up, AHEAD if elapsed > up + _AHEAD_SECONDS else ""
    return now.utc, ""


def to_text(utc: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond, rounded down.

    Examples
    --------
    >>> to_text(0.0015)
    '1970-01-01T00:00:00.001Z'
    """
    moment = datetime.fromtimestamp(utc, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def from_text(text: str) -> float:
    """Read :func:`to_text`.

    Raises
    ------
    ValueError
        It is no time in UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not UTC:
        raise ValueError(f"{text!r} is not in UTC")
    return moment.timestamp()
