"""What a site's agent tells Prometheus; nothing that depends on an example.

How far a preparation is, is a share and no number of images. How long answers took is the one thing
that grows with the data; it is served on the site's own machine only.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from fedtl.agent.agent_pb2 import State
from fedtl.agent.calls import CALL_OF
from fedtl.agent.server import Answered
from fedtl.errors import FedtlError
from fedtl.launch.ledgers import LEDGER
from fedtl.privacy.ledger import Ledger, epsilon_spent
from fedtl.site.config import SiteFolder

_UNKNOWN = "unknown"


class Tally:
    """Counts answers by type and code, and their seconds by type."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()

    def heard(self, answered: Answered) -> None:
        """Count one answer; types that no site answers are one, as their sender invents them."""
        kind = answered.type if answered.type in CALL_OF else _UNKNOWN
        with self._lock:
            self._answers[kind, answered.code or "ok"] += 1
            self._seconds[kind] += answered.seconds  # type: ignore[assignment]

    def metrics(self) -> Iterator[Metric]:
        """Yield what was counted."""
        with self._lock:
            answers, seconds = dict(self._answers), dict(self._seconds)
        messages = CounterMetricFamily(
            "fedtl_site_messages", "Answered messages", labels=("type", "code")
        )
        for (kind, code), n in answers.items():
            messages.add_metric((kind, code), n)
        took = SummaryMetricFamily("fedtl_site_answer_seconds", "Time to answer", labels=("type",))
        for kind, total in seconds.items():
            n = sum(n for (other, _), n in answers.items() if other == kind)
            took.add_metric((kind,), count_value=n, sum_value=total)
        yield from (messages, took)


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a ledger says; ``epsilon`` of the worst record."""

    entries: int
    epsilon: float


class SiteMetrics(Collector):
    """A site's state, preparation, messages, budget and ledger.

    Parameters
    ----------
    read : SiteFolder
        The state folder.
    tally : Tally
        Of the agent's answers.
    status : callable
        Returns what the agent is doing.
    """

    def __init__(self, read: SiteFolder, tally: Tally, status: Callable[[], State]) -> None:
        self._read, self._tally, self._status = read, tally, status
        self._spent: _Spent | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        state = self._status()
        yield InfoMetricFamily(
            "fedtl_site",
            "The site and its agent",
            value={"site": state.site, "version": state.version},
        )
        stage = GaugeMetricFamily("fedtl_site_state", "1 for the present state", labels=("state",))
        stage.add_metric((state.state,), 1)
        yield stage
        for name, what, value in (
            ("preparation_ratio", "Done of the present phase of preparing", _ratio(state)),
            ("busy", "1 while a message is answered", float(bool(state.busy))),
            ("waiting", "Messages that wait", float(state.waiting)),
            ("uptime_seconds", "Since the agent started", state.uptime_seconds),
        ):
            yield GaugeMetricFamily(f"fedtl_site_{name}", what, value=value)
        yield from self._tally.metrics()
        yield from self._budget()

    def _budget(self) -> Iterator[Metric]:
        budget, spent = self._read.policy.budget, self._look()
        readable = "1 if the ledger is whole, or there is none yet"
        yield GaugeMetricFamily("fedtl_site_ledger_whole", readable, value=float(spent is not None))
        if spent is None:
            return
        entries = "Entries of the ledger"
        yield GaugeMetricFamily("fedtl_site_ledger_entries", entries, value=spent.entries)
        worst = "Epsilon that the worst record has spent"
        yield GaugeMetricFamily("fedtl_site_epsilon_spent", worst, value=spent.epsilon)
        if budget is not None:
            left = max(0.0, budget.epsilon - spent.epsilon)
            what = "Epsilon of the policy's budget that is left"
            yield GaugeMetricFamily("fedtl_site_epsilon_left", what, value=left)

    def _look(self) -> _Spent | None:
        """Read the ledger; what it cost is composed anew only if it has grown or time counts."""
        path, budget = self._read.folder / LEDGER, self._read.policy.budget
        if not path.exists():
            return _Spent(0, 0.0)
        timed = budget is not None and budget.period_days is not None
        try:
            with Ledger.open(path, read_only=True) as ledger:
                n = len(ledger.entries())
                if self._spent is None or self._spent.entries != n or timed:
                    self._spent = _Spent(n, epsilon_spent(ledger, ledger.datasets(), budget))
        except FedtlError:
            return None
        return self._spent


def _ratio(state: State) -> float:
    """Return how far the present phase is, in hundredths: no number of images can be told by it."""
    if state.state == "ready":
        return 1.0
    return round(state.done / state.total, 2) if state.total else 0.0
