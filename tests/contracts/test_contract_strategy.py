"""What every strategy by name must do, so that a run does not depend on luck or on one bad site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from replies import heads, packed, raw_reply, reply
from toys import NAMES, WIDTH, Toys, toy_examples

from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.rounds import Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import STRATEGIES, make_strategy
from fedtl.strategies.logit_adjusted import LogitAdjustedFedAvg
from fedtl.train.additive import released
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import ADDITIVE, MEAN, MECHANISMS, STATISTICS, SUMS, task_config

NAMED = [name for name in STRATEGIES if name != "fltrust"]  # which needs a file of its own
each = pytest.mark.parametrize("name", NAMED)
CLOSED = ["fed3r", "fedncm", "fedcof", "fedlda", "fedpft"]
FIRST = {**dict.fromkeys(CLOSED, STATISTICS), "refined": STATISTICS, "fedwhiten": MEAN}
"""What strategies ask for first that do not begin with gradients."""
ROBUST = [n for n in NAMED if "fedtl.strategies.robust." in STRATEGIES[n]]
AVERAGING = ["fedavg", "fedprox", "fedmedian", "fedtrimmedavg", *ROBUST]


def grid_of(toys: Toys | None = None) -> StackedGrid:
    toys = toys or Toys()
    return StackedGrid(make_client_app(toys), toys.names, site_of=toys)


def started(name: str) -> Strategy:
    """Return a strategy that was asked to configure a round, as every round begins."""
    strategy = make_strategy(name)
    config = task_config(TrainTask(rounds=4), None)
    list(strategy.configure_train(1, pack(heads(1)[0]), config, grid_of()))
    return strategy


def answers(name: str, n: int = 5) -> list[Message]:
    if name == "logit_adjusted":
        counts = np.random.default_rng(4).integers(1, 9, (n, 3)).astype(float)
        return [reply(1000 + at, {"sum": c}, kind=SUMS) for at, c in enumerate(counts)]
    if name in FIRST:
        kind = FIRST[name]
        parts = [released(toy_examples(20, at), 3, mechanism=ADDITIVE[kind]) for at in range(n)]
        return [reply(1000 + at, p, kind=kind) for at, p in enumerate(parts)]
    return [reply(1000 + at, h, weight=1.0 + at % 2) for at, h in enumerate(heads(n, 3))]


def start_of(strategy: Strategy) -> Arrays:
    directions = getattr(strategy, "directions", None)
    return initial_head("linear", WIDTH, 3, directions=directions)


def same(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for key, values in a.items():
        np.testing.assert_array_equal(values, b[key])


def aggregated(strategy: Strategy, replies: list[Message]) -> Arrays:
    arrays, _ = strategy.aggregate_train(1, replies)
    if isinstance(strategy, LogitAdjustedFedAvg):  # its first round only counts
        return {str(node): counts for node, counts in strategy.counts.items()}
    assert arrays is not None
    return unpack(arrays)


def play(
    grid: Grid,
    strategy: Strategy,
    *,
    rounds: int = 3,
    start: State | None = None,
    **options: object,
) -> tuple[Arrays, tuple[object, ...]]:
    outcome = run(
        grid,
        strategy,
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=start or State(0, start_of(strategy)),
        config=task_config(TrainTask(rounds=3, steps=3, lr=0.5), None, seed=1),
        settings=Settings(rounds, seed=2),
        **options,  # type: ignore[arg-type]
    )
    return outcome.head, outcome.history


@each
def test_a_round_changes_none_of_its_inputs(name: str) -> None:
    strategy, head = make_strategy(name), heads(1)[0]
    sent = {k: v.copy() for k, v in head.items()}
    list(strategy.configure_train(1, pack(head), task_config(TrainTask(rounds=4), None), grid_of()))
    replies = answers(name)
    received = [unpack(r.content["arrays"]) for r in replies]
    before = [{k: v.copy() for k, v in arrays.items()} for arrays in received]
    aggregated(strategy, replies)
    for arrays, copies in zip(received, before, strict=True):
        for key, values in copies.items():
            np.testing.assert_array_equal(arrays[key], values)
    np.testing.assert_array_equal(head["weight"], sent["weight"])


@each
def test_the_order_of_replies_changes_rounding_at_most(name: str) -> None:
    forwards = aggregated(started(name), answers(name))
    backwards = aggregated(started(name), answers(name)[::-1])
    for key, values in forwards.items():
        np.testing.assert_allclose(values, backwards[key], atol=1e-6)


class Shuffled(WrappedGrid):
    """Hands out replies in another order each time."""

    def __init__(self, inner: Grid, seed: int) -> None:
        super().__init__(inner)
        self.rng = np.random.default_rng(seed)

    def send_and_receive(self, messages, *, timeout=None):  # type: ignore[no-untyped-def]
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        self.rng.shuffle(replies)
        return replies


@each
def test_the_order_of_arrival_does_not_change_one_bit_of_a_run(name: str) -> None:
    rounds = getattr(make_strategy(name), "rounds", 3)
    results = [play(Shuffled(grid_of(), s), make_strategy(name), rounds=rounds)[0] for s in (1, 2)]
    same(results[0], results[1])


@each
def test_without_a_usable_reply_nothing_changes(name: str) -> None:
    """A round of failures is the run's to report; the strategy must survive it unchanged."""
    strategy = started(name)
    arrays, metrics = strategy.aggregate_train(1, [])
    assert (arrays, metrics) == (None, None)
    toys = Toys(faults=dict.fromkeys(NAMES, "unreadable"))
    with pytest.raises(TransportError, match=r"site-a: data\.unreadable") as error:
        play(grid_of(toys), make_strategy(name), rounds=1)
    assert error.value.code == "round.empty"


class Spoiled(WrappedGrid):
    """Replaces the training reply of one site by something else."""

    def __init__(self, inner: Grid, node: int, spoil: Callable[[int], Message]) -> None:
        super().__init__(inner)
        self.node, self.spoil = node, spoil

    def send_and_receive(self, messages, *, timeout=None):  # type: ignore[no-untyped-def]
        for got in self.inner.send_and_receive(messages, timeout=timeout):
            trained = got.metadata.message_type in MECHANISMS
            yield (
                self.spoil(self.node) if trained and got.metadata.src_node_id == self.node else got
            )


def bad(value: float) -> np.ndarray:
    values = np.zeros((3, WIDTH), np.float32)
    values[1, 2] = value
    return values


SPOILED: dict[str, tuple[str, Callable[[int], Message]]] = {
    "nan": ("update.not-finite", lambda n: raw_reply(n, packed(bad(np.nan)))),
    "infinite": ("update.not-finite", lambda n: raw_reply(n, packed(bad(-np.inf)))),
    "shape": ("update.shape", lambda n: raw_reply(n, packed(np.zeros((3, 2), np.float32)))),
    "name": ("update.shape", lambda n: raw_reply(n, packed(bad(0), "weights"))),
    "nothing": ("update.shape", lambda n: raw_reply(n, pack({}))),
    "weight nan": ("message.invalid", lambda n: weighted(n, float("nan"))),
    "weight zero": ("message.invalid", lambda n: weighted(n, 0.0)),
    "weight below zero": ("message.invalid", lambda n: weighted(n, -3.0)),
    "weight list": ("message.invalid", lambda n: weighted(n, [1.0])),
    "no weight": ("message.invalid", lambda n: weighted(n, None)),
    "one more metric": ("message.invalid", lambda n: raw_reply(n, packed(bad(0)), loss=0.1)),
}


def weighted(node: int, weight: object) -> Message:
    return raw_reply(node, packed(bad(0)), **{"num-examples": weight})


@each
@pytest.mark.parametrize("what", SPOILED)
def test_one_bad_update_is_left_out_and_named(name: str, what: str) -> None:
    """The run goes on, with the head that the others alone would have made."""
    code, spoil = SPOILED[what]
    head, (record,) = play(Spoiled(grid_of(), 1002, spoil), make_strategy(name), rounds=1)
    assert record.failures == {"site-c": code}  # type: ignore[attr-defined]
    toys = Toys(faults={"site-c": "unreadable"})
    expected, _ = play(grid_of(toys), make_strategy(name), rounds=1)
    same(head, expected)


@pytest.mark.parametrize("name", AVERAGING)
def test_equal_updates_are_a_fixed_point(name: str) -> None:
    head = heads(1, 7)[0]
    got = aggregated(started(name), [reply(1000 + at, head, weight=2.0 + at) for at in range(5)])
    np.testing.assert_allclose(got["weight"], head["weight"], rtol=1e-6)


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_averages_are_weighted(name: str) -> None:
    ones, twos = (np.full((3, 6), v, np.float32) for v in (1, 2))
    replies = [reply(1000, {"weight": ones}, weight=3.0), reply(1001, {"weight": twos}, weight=1.0)]
    np.testing.assert_allclose(aggregated(started(name), replies)["weight"], 1.25)


@pytest.mark.parametrize("name", sorted(set(NAMED) - set(CLOSED)))  # those have one round
@pytest.mark.parametrize("after", [1, 2])
def test_a_strategys_memory_survives_a_checkpoint(name: str, after: int, tmp_path: Path) -> None:
    """A resumed run ends with the head of an uninterrupted one, to the last bit."""
    strategy = make_strategy(name)
    whole, _ = play(grid_of(), strategy)

    first, toys = make_strategy(name), Toys()  # whose sites remember as well
    play(grid_of(toys), first, rounds=after, on_round=lambda state, _: save(tmp_path, state, first))
    second = make_strategy(name)
    state = load(tmp_path, second)
    assert state is not None
    assert state.round == after
    resumed, _ = play(grid_of(toys), second, start=state)
    same(resumed, whole)


@each
def test_the_strategy_says_with_few_sites_why_it_cannot_go_on(name: str) -> None:
    """One site is the smallest federation: a head, or an error that names the strategy."""
    toys = Toys(names=("site-a",))
    head, _ = play(grid_of(toys), make_strategy(name), rounds=1)
    assert all(np.isfinite(values).all() for values in head.values())


def test_a_run_on_the_reference_grid_gives_the_same_head() -> None:
    toys = Toys()
    local = LocalGrid(make_client_app(toys), toys.names)
    np.testing.assert_array_equal(
        play(local, make_strategy("fedavg"))[0]["weight"],
        play(grid_of(), make_strategy("fedavg"))[0]["weight"],
    )
