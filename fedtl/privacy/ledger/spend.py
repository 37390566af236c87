"""What a data set has spent: the composition of everything that its worst unit was part of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import check_delta, epsilon_of
from fedtl.privacy.events import (
    ComposedEvent,
    Event,
    GaussianEvent,
    PoissonGaussianEvent,
    releases_of,
)
from fedtl.privacy.ledger.dataset import DataSet

REFERENCE_DELTA = 1e-5
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What the records of a data set may spend.

    Attributes
    ----------
    epsilon, delta : float
        At most so much, everything composed.
    period_days : float or None
        Releases older than this no longer count, None: they count for ever. A period is a promise
        about a stretch of time, not about all of it: what was released stays released.
    """

    epsilon: float
    delta: float
    period_days: float | None = None

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if not 0 < self.epsilon < math.inf:
            raise PrivacyError(
                f"epsilon = {self.epsilon} of a budget is not a finite number above 0.",
                next_step="Give the most that may be spent, for example 8.",
            )
        if self.period_days is not None and not 0 < self.period_days < math.inf:
            raise PrivacyError(
                f"period_days = {self.period_days} of a budget is not a number above 0.",
                next_step="Give a number of days, or None for a budget for ever.",
            )

    def since(self, now: float) -> float:
        """Return the time (seconds since 1970) from which releases count."""
        return -math.inf if self.period_days is None else now - self.period_days * _DAY


def compose(events: Iterable[Event]) -> Event:
    """Return one flat event for several; releases of the same kind are added up.

    Examples
    --------
    >>> compose([GaussianEvent(2.0, 1), GaussianEvent(2.0, 4)])
    GaussianEvent(noise_multiplier=2.0, count=5)
    """
    flat: list[Event] = [
        GaussianEvent(r.noise_multiplier, r.count)
        if r.sampling_rate == 1
        else PoissonGaussianEvent(r.noise_multiplier, r.sampling_rate, r.count)
        for r in releases_of(ComposedEvent(tuple(events)))
    ]
    return flat[0] if len(flat) == 1 else ComposedEvent(tuple(flat))


def count_of(event: Event) -> int:
    """Return the number of releases in an event."""
    return sum(r.count for r in releases_of(event))


def worst_of(events: Sequence[Event], delta: float) -> Event:
    """Return the dearest event at ``delta``; nothing released if there is none."""
    distinct = {releases_of(event): event for event in events}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    return max(
        distinct.values(), key=lambda event: epsilon_of(event, delta), default=ComposedEvent(())
    )


def signatures(dataset: DataSet, charged: Mapping[str, DataSet]) -> list[frozenset[str]]:
    """Return which charged data sets the units of ``dataset`` were in, largest sets only.

    A unit that was in all data sets of another, and more, has spent at least as much, so smaller
    sets need not be looked at. Under unit ``"group"`` a group was where any of its records was.

    Parameters
    ----------
    charged : mapping of str to DataSet
        Fingerprint to data set, for all that something was released about.

    Returns
    -------
    list of frozenset of str
        Fingerprints; empty if no unit was in any of them.
    """
    names = list(charged)
    if not names or not len(dataset):
        return []
    where = np.stack([dataset.covered_by(charged[name]) for name in names], axis=1)
    packed = np.packbits(where, axis=1)
    if dataset.groups is not None:
        order = np.argsort(dataset.groups, kind="stable")
        _, starts = np.unique(dataset.groups[order], return_index=True)
        packed = np.bitwise_or.reduceat(packed[order], starts, axis=0)
    rows = np.unpackbits(np.unique(packed, axis=0), axis=1, count=len(names)).astype(bool)
    found = sorted((_chosen(names, row) for row in rows), key=len, reverse=True)
    largest: list[frozenset[str]] = []
    for one in found:
        if one and not any(one <= other for other in largest):
            largest.append(one)
    return largest


def _chosen(names: Sequence[str], row: np.ndarray) -> frozenset[str]:
    return frozenset(name for name, there in zip(names, row, strict=True) if there)
