"""What the worst record of some data sets has spent."""

from __future__ import annotations

import time
from collections.abc import Iterable

from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import ComposedEvent, Event
from fedtl.privacy.ledger.dataset import DataSet
from fedtl.privacy.ledger.ledger import Ledger
from fedtl.privacy.ledger.spend import REFERENCE_DELTA, Budget


def epsilon_spent(
    ledger: Ledger,
    datasets: Iterable[DataSet],
    budget: Budget | None = None,
    *,
    more: Event | None = None,
) -> float:
    """Return the epsilon that the worst record of some data sets has spent until now.

    Parameters
    ----------
    budget : Budget, optional
        Names delta and period; without it 1e-5, for ever.
    more : Event, optional
        To be released as well.
    """
    delta = REFERENCE_DELTA if budget is None else budget.delta
    since = None if budget is None else budget.since(time.time())
    costs = (ledger.spend(one, delta=delta, since=since) for one in datasets)
    events = (cost if more is None else ComposedEvent((cost, more)) for cost in costs)
    return max((epsilon_of(event, delta) for event in events), default=0.0)
