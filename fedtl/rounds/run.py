"""One loop over rounds, made for being read, stopped and resumed.

Differs from Flower's ``Strategy.start`` in what a federation of institutions needs: cohorts are
drawn by site name from the run's seed, replies are checked and put in name order before a strategy
sees them, and the state after every round is a value that can be saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from flwr.app import ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, TransportError
from fedtl.garbage import undisturbed
from fedtl.rounds.at_work import AtWork
from fedtl.rounds.check import usable_evaluations, usable_replies
from fedtl.rounds.handed import arrays_of, called, head_of, is_finished, messages_of
from fedtl.rounds.record import Results, RoundRecord, Settings
from fedtl.rounds.sites import CohortGrid, by_name, check_minimums, drawn, global_random
from fedtl.strategies.declared import Declared
from fedtl.transport.asynchronous import InFlight
from fedtl.types import Arrays
from fedtl.wire.arrays import pack
from fedtl.wire.evaluation import evaluation_config
from fedtl.wire.messages import MECHANISMS, records


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the next round depends on: save it, and the run can go on from there."""

    round: int
    head: Arrays
    in_flight: InFlight = field(default_factory=InFlight)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run."""

    head: Arrays
    history: tuple[RoundRecord, ...] = field(repr=False)


OnRound = Callable[[State, RoundRecord], None]
OnEvaluated = Callable[[int, Results], None]
Sites = Mapping[int, str] | Callable[[int], Mapping[int, str]]
"""Node id to site name, for the whole run or asked for before every round."""


def run(
    grid: Grid,
    strategy: Strategy,
    *,
    sites: Sites,
    start: State,
    config: ConfigRecord,
    settings: Settings,
    on_round: OnRound = lambda state, record: None,
    on_evaluated: OnEvaluated = lambda round_, results: None,
) -> Outcome:
    """Run the rounds that are left, or until the strategy says that it is ``finished``.

    Parameters
    ----------
    sites : mapping of int to str, or callable
        Node id to site name (see :func:`fedtl.rounds.sites.describe_sites`).
    start : State
        Round 0 and the initial head, or the state saved after an earlier round.
    config : ConfigRecord
        Sent with every training message (see :func:`fedtl.wire.messages.task_config`).
    on_round : callable
        Called after every round, before the next begins; what it raises stops the run.
    on_evaluated : callable
        Called with the evaluation of an earlier round, where it came with the next one's updates.

    Raises
    ------
    TransportError
        Too few sites sent a usable update in a round.
    StrategyError
        The strategy would wait for ever for more sites than there are, or failed.
    """
    loop = _Loop(grid, strategy, config, settings, AtWork.on(grid))
    head = start.head
    history: list[RoundRecord] = []
    nodes = {} if callable(sites) else by_name(sites)
    for round_ in range(start.round + 1, settings.rounds + 1):
        there = sites(round_) if callable(sites) else sites
        if not nodes or round_ == start.round + 1:
            loop.at_work.names.update(there)
        if round_ == start.round + 1:
            loop.at_work.take_up(start.in_flight, there, timeout=settings.timeout)
        with global_random(settings.seed, round_):
            head, record, before = loop.round(round_, head, there, nodes or by_name(there))
        if before is not None:
            if history:
                history[-1] = before.on(history[-1])
            on_evaluated(round_ - 1, before)
        history.append(record)
        on_round(State(round_, head, loop.at_work.in_flight), record)
        if is_finished(strategy, round_):
            break
    return Outcome(head, tuple(history))


@dataclass(frozen=True, slots=True)
class _Loop:
    """What stays the same from round to round."""

    grid: Grid
    strategy: Strategy
    config: ConfigRecord
    settings: Settings
    at_work: AtWork

    def round(
        self, round_: int, head: Arrays, sites: Mapping[int, str], nodes: Mapping[str, int]
    ) -> tuple[Arrays, RoundRecord, Results | None]:
        """Run one round; return its head and record, and what the sites said of the head before."""
        strategy, at_work = self.strategy, self.at_work
        began = at_work.now
        cohort, messages = self._asked(round_, head, nodes)
        asked = self._questions(round_ - 1, head, sites) if self.settings.together else []
        replies = self._sent([*messages, *asked])
        kinds = {m.metadata.message_type for m in asked}
        updates = [r for r in replies if r.metadata.message_type not in kinds]
        messages = at_work.settled(messages)
        with undisturbed():
            usable, failures = usable_replies(messages, updates, at_work.names, head)
            while at_work.busy and len(usable) < self.settings.least_updates:
                updates += self._sent([])
                messages += at_work.settled([])
                usable, failures = usable_replies(messages, updates, at_work.names, head)
            trained, clock = at_work.now, [time.perf_counter()]
            self._check_enough(round_, messages, usable, failures)
            before = self._results(round_ - 1, asked, replies, sites, head) if asked else None
            new_head = _aggregate(strategy, round_, usable, head)
        clock.append(time.perf_counter())
        last = round_ == self.settings.rounds
        results = Results({}, {})
        if last or not self.settings.together:
            results = self._evaluate(round_, new_head, sites)
        clock.append(time.perf_counter())
        late = at_work.late if last or is_finished(strategy, round_) else {}
        record = RoundRecord(
            round_,
            tuple(sorted({*at_work.cohort(cohort, messages), *late})),
            {**failures, **late},
            MECHANISMS.get(messages[0].metadata.message_type, "") if messages else "",
            {at_work.names[r.metadata.src_node_id]: _releases(r) for r in usable},
            results.evaluations,
            results.unevaluated,
            trained - began,
            *(b - a for a, b in pairwise(clock)),
        )
        return new_head, record, before

    def _asked(
        self, round_: int, head: Arrays, nodes: Mapping[str, int]
    ) -> tuple[Sequence[str], list[Message]]:
        """Draw the round's sites by name, among those not at work; return them and what they get.

        Nobody is asked where everybody that is there is at work.
        """
        busy = self.at_work.busy.intersection(nodes.values()) if self.at_work.busy else ()
        size = min(self.settings.sites_per_round or len(nodes), len(nodes)) - len(busy)
        if busy and size <= 0:
            return (), []
        check_minimums(self.strategy, size, len(nodes))
        idle = [name for name, node in nodes.items() if node not in busy] if busy else list(nodes)
        cohort = drawn(idle, size, self.settings.seed, round_)
        names = self.at_work.names
        chosen = CohortGrid(self.grid, [nodes[name] for name in cohort], len(nodes), names)
        own_config = ConfigRecord(dict(self.config.items()))  # strategies write into it
        with called(self.strategy, "configure_train", round_):
            made = self.strategy.configure_train(round_, pack(head), own_config, chosen)
            return cohort, messages_of(self.strategy, "configure_train", made)

    def _sent(self, messages: Sequence[Message]) -> list[Message]:
        return list(self.grid.send_and_receive(messages, timeout=self.settings.timeout))

    def _check_enough(
        self,
        round_: int,
        messages: Sequence[Message],
        usable: Sequence[Message],
        failures: Mapping[str, str],
    ) -> None:
        least = self.settings.least_updates
        if not messages or len(usable) >= least:
            return
        codes = ", ".join(f"{site}: {code}" for site, code in sorted(failures.items())[:5])
        found = f"{len(usable)} of {least} sites" if usable else "No site"
        raise TransportError(
            f"{found} sent a usable update in round {round_} ({codes}).",
            next_step="See the sites' logs for these codes; then resume the run.",
            code="round.few" if usable else "round.empty",
        )

    def _questions(self, round_: int, head: Arrays, sites: Mapping[int, str]) -> list[Message]:
        """Return the messages that evaluate a round's head at all sites, where it is due.

        A strategy may skip it as well.
        """
        personal, last = Declared.of(self.strategy).personal, round_ == self.settings.rounds
        if round_ < 1 or not (self.settings.due(round_) or (personal and last)):
            return []
        away = frozenset() if last else self.at_work.silent
        asked = sorted(sites.keys() - away, key=sites.__getitem__)
        if not asked:
            return []
        everyone = CohortGrid(self.grid, asked, len(sites), sites)
        config = evaluation_config(
            self.config,
            round_=round_,
            confusion=self.settings.metrics == "clear" or last,
            personal=personal is not None,
            silent=self.settings.metrics == "off",
        )
        with called(self.strategy, "configure_evaluate", round_):
            made = self.strategy.configure_evaluate(round_, pack(head), config, everyone)
            return messages_of(self.strategy, "configure_evaluate", made)

    def _evaluate(self, round_: int, head: Arrays, sites: Mapping[int, str]) -> Results:
        asked = self._questions(round_, head, sites)
        if not asked:
            return Results({}, {})
        return self._results(round_, asked, self._sent(asked), sites, head)

    def _results(
        self,
        round_: int,
        asked: Sequence[Message],
        replies: Sequence[Message],
        sites: Mapping[int, str],
        head: Arrays,
    ) -> Results:
        kinds = {m.metadata.message_type for m in asked}
        told = [r for r in replies if r.metadata.message_type in kinds]
        results, failures = usable_evaluations(asked, told, sites, head)
        counted = [reply for reply, result in results.values() if result.measured]
        if counted:
            with (
                called(self.strategy, "aggregate_evaluate", round_),
                _explained(self.strategy, f"{len(counted)} evaluations", round_),
            ):
                self.strategy.aggregate_evaluate(round_, counted)
        return Results({name: result for name, (_, result) in results.items()}, failures)


@contextmanager
def _explained(strategy: Strategy, what: str, round_: int) -> Iterator[None]:
    try:
        yield
    except (AggregationError, InconsistentMessageReplies, ValueError, ArithmeticError) as error:
        raise StrategyError(
            f"{type(strategy).__name__} could not combine {what} in round {round_}: {error}",
            next_step="Check the strategy's options against the number of sites.",
        ) from error


def _aggregate(strategy: Strategy, round_: int, replies: Sequence[Message], head: Arrays) -> Arrays:
    explained = _explained(strategy, f"{len(replies)} updates", round_)
    with called(strategy, "aggregate_train", round_), explained:
        arrays = arrays_of(strategy, strategy.aggregate_train(round_, replies))
    return head if arrays is None else head_of(strategy, arrays, head, round_=round_)


def _releases(reply: Message) -> int:
    value = next((m.get("releases") for m in records(reply.content, MetricRecord)), 0)
    return value if isinstance(value, int) else 0
