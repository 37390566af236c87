"""What the loop does for every strategy, so that a run does not depend on luck or on one bad site.

What every strategy by name must do itself are the laws of ``fedtl.testing``, which
``tests/testing/test_testing_table.py`` tries on each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from replies import packed, raw_reply
from toys import NAMES, WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack
from fedtl.wire.messages import MECHANISMS, task_config

each = pytest.mark.parametrize("name", ["fedavg", "fed3r", "fedwhiten", "logit_adjusted"])
"""Of each kind of message that a run may begin with."""


def grid_of(toys: Toys | None = None) -> StackedGrid:
    toys = toys or Toys()
    return StackedGrid(make_client_app(toys), toys.names, site_of=toys)


def same(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for key, values in a.items():
        np.testing.assert_array_equal(values, b[key])


def play(grid: Grid, strategy: Strategy, *, rounds: int = 3) -> tuple[Arrays, tuple[object, ...]]:
    head = initial_head("linear", WIDTH, 3, directions=getattr(strategy, "directions", None))
    outcome = run(
        grid,
        strategy,
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, head),
        config=task_config(TrainTask(rounds=3, steps=3, lr=0.5), None, seed=1),
        settings=Settings(rounds, seed=2),
    )
    return outcome.head, outcome.history


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
def test_a_round_without_a_usable_reply_ends_the_run_with_the_sites_codes(name: str) -> None:
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
