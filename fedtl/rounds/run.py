"""One loop over rounds, made for being read, stopped and resumed.

Differs from Flower's ``Strategy.start`` in what a federation of institutions needs: cohorts are
drawn by site name from the run's seed, replies are checked and put in name order before a strategy
sees them, and the state after every round is a value that can be saved.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, TransportError
from fedtl.rng import stream
from fedtl.rounds.check import usable_evaluations, usable_replies
from fedtl.rounds.record import RoundRecord, Settings
from fedtl.rounds.sites import CohortGrid
from fedtl.types import Arrays, Evaluation
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import MECHANISMS, evaluation_config, records


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the next round depends on: save it, and the run can go on from there."""

    round: int
    head: Arrays


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run."""

    head: Arrays
    history: tuple[RoundRecord, ...] = field(repr=False)


OnRound = Callable[[State, RoundRecord], None]


def run(
    grid: Grid,
    strategy: Strategy,
    *,
    sites: Mapping[int, str],
    start: State,
    config: ConfigRecord,
    settings: Settings,
    on_round: OnRound = lambda state, record: None,
) -> Outcome:
    """Run the rounds that are left.

    Parameters
    ----------
    sites : mapping of int to str
        Node id to site name (see :func:`fedtl.rounds.sites.describe_sites`).
    start : State
        Round 0 and the initial head, or the state saved after an earlier round.
    config : ConfigRecord
        Sent with every training message (see :func:`fedtl.wire.messages.task_config`).
    on_round : callable
        Called after every round, before the next begins; what it raises stops the run.

    Raises
    ------
    TransportError
        No site sent a usable update in a round.
    StrategyError
        The strategy would wait for ever for more sites than there are, or failed.
    """
    cohort_size = min(settings.sites_per_round or len(sites), len(sites))
    _check_minimums(strategy, cohort_size, len(sites))
    nodes = {name: node for node, name in sites.items()}
    names = sorted(nodes)
    head, history = start.head, []
    for round_ in range(start.round + 1, settings.rounds + 1):
        cohort = _cohort(names, cohort_size, settings.seed, round_)
        chosen = CohortGrid(grid, [nodes[name] for name in cohort])
        with _global_random(settings.seed, round_):
            head, record = _one_round(
                chosen, strategy, round_, head, config, cohort, sites, settings
            )
        history.append(record)
        on_round(State(round_, head), record)
    return Outcome(head, tuple(history))


def _one_round(
    grid: CohortGrid,
    strategy: Strategy,
    round_: int,
    head: Arrays,
    config: ConfigRecord,
    cohort: tuple[str, ...],
    sites: Mapping[int, str],
    settings: Settings,
) -> tuple[Arrays, RoundRecord]:
    clock = [time.perf_counter()]
    own_config = ConfigRecord(dict(config.items()))  # strategies write into it
    arrays = pack(head)
    messages = list(strategy.configure_train(round_, arrays, own_config, grid))
    replies = list(grid.send_and_receive(messages, timeout=settings.timeout))
    clock.append(time.perf_counter())
    usable, failures = usable_replies(messages, replies, sites, head)
    if messages and not usable:
        codes = ", ".join(f"{site}: {code}" for site, code in sorted(failures.items())[:5])
        raise TransportError(
            f"No site sent a usable update in round {round_} ({codes}).",
            next_step="See the sites' logs for these codes; then resume the run.",
            code="round.empty",
        )
    releases = {sites[r.metadata.src_node_id]: _releases(r) for r in usable}
    new_head = _aggregate(strategy, round_, usable, head)
    clock.append(time.perf_counter())
    evaluations, unevaluated = _evaluate(
        grid.inner, strategy, round_, new_head, config, sites, settings
    )
    clock.append(time.perf_counter())
    seconds = [b - a for a, b in pairwise(clock)]
    mechanism = MECHANISMS.get(messages[0].metadata.message_type, "") if messages else ""
    return new_head, RoundRecord(
        round_, cohort, failures, mechanism, releases, evaluations, unevaluated, *seconds
    )


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
    with _explained(strategy, f"{len(replies)} updates", round_):
        arrays, _ = strategy.aggregate_train(round_, replies)
    if arrays is None:
        return head
    # a strategy answers what sites train, and may set the rest (the whitening) as well
    new = {**head, **unpack(ArrayRecord(dict(arrays.items())))}
    finite = all(np.isfinite(v).all() for v in new.values())
    if not finite or {k: v.shape for k, v in new.items()} != {k: v.shape for k, v in head.items()}:
        raise StrategyError(
            f"{type(strategy).__name__} returned a head that is not finite or changed its shape in "
            f"round {round_}.",
            next_step="Lower its learning rate, or check its aggregate_train.",
        )
    return {name: np.asarray(values, np.float32) for name, values in new.items()}


def _evaluate(
    grid: Grid,
    strategy: Strategy,
    round_: int,
    head: Arrays,
    config: ConfigRecord,
    sites: Mapping[int, str],
    settings: Settings,
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Evaluate at all sites where it is due; a strategy may skip it as well."""
    if not settings.due(round_):
        return {}, {}
    everyone = CohortGrid(grid, sorted(sites, key=sites.__getitem__))
    confusion = settings.metrics == "clear" or round_ == settings.rounds
    own_config = evaluation_config(config, round_=round_, confusion=confusion)
    messages = list(strategy.configure_evaluate(round_, pack(head), own_config, everyone))
    replies = list(grid.send_and_receive(messages, timeout=settings.timeout))
    results, failures = usable_evaluations(messages, replies, sites, head)
    counted = [reply for reply, result in results.values() if result.measured]
    if counted:
        with _explained(strategy, f"{len(counted)} evaluations", round_):
            strategy.aggregate_evaluate(round_, counted)
    return {name: result for name, (_, result) in results.items()}, failures


def _releases(reply: Message) -> int:
    value = next((m.get("releases") for m in records(reply.content, MetricRecord)), 0)
    return value if isinstance(value, int) else 0


def _cohort(names: Sequence[str], size: int, seed: int, round_: int) -> tuple[str, ...]:
    if size == len(names):
        return tuple(names)
    picked = stream(seed, "cohort", round_).choice(len(names), size, replace=False)
    return tuple(names[at] for at in sorted(picked))


@contextmanager
def _global_random(seed: int, round_: int) -> Iterator[None]:
    """Seed the global ``random`` that Flower's ``sample_nodes`` draws from, and put it back."""
    before = random.getstate()
    random.seed(f"{seed}/{round_}")
    try:
        yield
    finally:
        random.setstate(before)


def _check_minimums(strategy: Strategy, cohort: int, everyone: int) -> None:
    """Flower's ``sample_nodes`` waits without end for nodes that never come."""
    for name, there in (
        ("min_train_nodes", cohort),
        ("min_available_nodes", cohort),
        ("min_evaluate_nodes", everyone),
    ):
        wanted = getattr(strategy, name, 0)
        if isinstance(wanted, int) and wanted > there:
            raise StrategyError(
                f"{type(strategy).__name__}.{name} = {wanted}, but only {there} sites take part.",
                next_step=f"Lower {name} in [strategy.options] or raise the number of sites.",
            )
