"""Rounds that do not wait for all, by push and pull: who is slow is used later, or given up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from toys import CLASSES, NAMES, WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.strategies.fedbuff import FedBuff
from fedtl.strategies.updates import replaced
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport import superlink
from fedtl.transport._identity import records_to_bytes
from fedtl.transport.buffered import BufferedGrid
from fedtl.transport.compress import CompressedGrid
from fedtl.transport.local import LocalGrid
from fedtl.transport.superlink import FollowedGrid
from fedtl.transport.wrappers import round_of
from fedtl.types import Arrays
from fedtl.wire.compress import Compression
from fedtl.wire.messages import TRAIN, task_config

SLOW = NAMES[0]
TASK = TrainTask(rounds=20, steps=3, lr=0.3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "_POLL", 0.002)


class Post(LocalGrid):
    """Sites answer at once, and the answers of some of them stay on their way, or are spoiled."""

    def __init__(self, toys: Toys, *held: str, spoiled: str = "") -> None:
        super().__init__(make_client_app(toys), toys.names)
        self.node_of = dict(zip(toys.names, self.get_node_ids(), strict=True))
        self.held = {self.node_of[name] for name in held}
        self.spoiled = self.node_of.get(spoiled)
        self.pushed: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        self.pushed += sent
        return super().push_messages(sent)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        there = {m: r for m, r in self._replies.items() if r.metadata.src_node_id not in self.held}
        came = super().pull_messages([m for m in message_ids if m in there])
        return [spoilt(r) if r.metadata.src_node_id == self.spoiled else r for r in came]

    def trainings(self, name: str) -> list[Message]:
        """Return what a site was asked to train."""
        return [
            m
            for m in self.pushed
            if (m.metadata.dst_node_id, m.metadata.message_type) == (self.node_of[name], TRAIN)
        ]


def spoilt(reply: Message) -> Message:
    if reply.metadata.message_type != TRAIN:
        return reply
    return replaced(reply, {"weight": np.full((len(CLASSES), WIDTH), np.nan, np.float32)})


class Noting(FedBuff):
    """Notes how old the heads are that the buffered moves began with."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[list[int]] = []

    def moves(self, server_round: int, replies: Sequence[Message]) -> list[tuple[Arrays, int]]:
        found = super().moves(server_round, replies)
        self.ages.append([age for _, age in found])
        return found


def play(
    post: Post,
    strategy: Strategy,
    *,
    rounds: int,
    buffer: int = 3,
    around: Any = lambda grid: grid,
    grid: BufferedGrid | None = None,
    start: State | None = None,
    timeout: float = 30.0,
    metrics: Literal["clear", "off"] = "off",
    **hooks: Any,
) -> Outcome:
    names = {node: d.name for node, d in describe_sites(post).items()}
    return run(
        around(grid or BufferedGrid(FollowedGrid(post), buffer=buffer)),
        strategy,
        sites=names,
        start=start or State(0, initial_head("linear", WIDTH, len(CLASSES))),
        config=task_config(TASK, None, seed=3),
        settings=Settings(rounds=rounds, seed=3, timeout=timeout, metrics=metrics),
        **hooks,
    )


@pytest.mark.parametrize(
    "around",
    [lambda grid: grid, lambda grid: CompressedGrid(grid, Compression("top_k", share=0.5))],
    ids=["whole", "compressed"],
)
def test_a_slow_site_is_not_waited_for_and_its_late_move_is_used(around: Any) -> None:
    post, strategy = Post(Toys(), SLOW), Noting()
    began = time.monotonic()

    def on_round(state: State, record: Any) -> None:
        assert (post.node_of[SLOW] in busy(state)) == (state.round < 4)
        if state.round == 3:
            post.held.clear()

    outcome = play(post, strategy, rounds=5, around=around, metrics="clear", on_round=on_round)
    assert time.monotonic() - began < 10  # of a timeout of 30 seconds
    cohorts = [record.cohort for record in outcome.history]
    assert [SLOW in cohort for cohort in cohorts] == [False, False, False, True, True]
    assert not any(record.failures for record in outcome.history)
    assert len(post.trainings(SLOW)) == 2
    assert [sorted(ages)[-1] for ages in strategy.ages] == [0, 0, 0, 3, 0]
    # who is at work is not asked how good a head is
    assert [SLOW in r.evaluations for r in outcome.history] == [False, False, False, True, True]
    assert outcome.history[-1].loss < outcome.history[0].loss


def busy(state: State) -> set[int]:
    return set(state.in_flight.nodes.values())


def test_one_that_never_answers_is_given_up_and_free_again() -> None:
    post = Post(Toys(), SLOW)
    outcome = play(post, FedBuff(), rounds=4, timeout=0.6, on_round=lambda s, r: time.sleep(0.25))
    found = [record.failures for record in outcome.history]
    assert {SLOW: "reply.missing"} in found
    assert found[-1] in ({SLOW: "reply.late"}, {SLOW: "reply.missing"})
    assert 2 <= len(post.trainings(SLOW)) <= 6  # each training is sent again once
    assert all(len(record.cohort) > 3 for record in outcome.history)


def test_failures_fill_no_buffer_and_what_cannot_be_used_is_made_up_for() -> None:
    """One site fails and one sends NaN; a round with a buffer of 1 goes on to the third one."""
    post = Post(Toys(names=("a", "b", "c"), faults={"a": "broken"}), "c", spoiled="b")
    outcome = play(post, FedBuff(), rounds=1, buffer=1, grid=Opening(post))
    (record,) = outcome.history
    assert record.failures == {"a": "site.failed", "b": "update.not-finite"}
    assert record.releases.keys() == {"c"}


class Opening(BufferedGrid):
    """Lets the answers go that are held back, after the first wait."""

    def __init__(self, post: Post) -> None:
        super().__init__(FollowedGrid(post), buffer=1)
        self._post = post

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = super().send_and_receive(messages, timeout=timeout)
        self._post.held.clear()
        return replies


def test_a_run_of_which_all_sites_fail_says_so() -> None:
    post = Post(Toys(names=("a", "b"), faults={"a": "broken", "b": "broken"}))
    with pytest.raises(TransportError, match="No site sent a usable update in round 1") as error:
        play(post, FedBuff(), rounds=2, buffer=1)
    assert error.value.code == "round.empty"


def test_after_a_restart_the_late_move_is_used_with_the_head_that_it_began_with(
    tmp_path: Path,
) -> None:
    """The site is asked again for the round that it was at, so that it answers from its store."""
    post, first = Post(Toys(), SLOW), Noting()

    def on_round(state: State, record: Any) -> None:
        save(tmp_path, state, first)

    play(post, first, rounds=2, on_round=on_round)
    (asked,) = post.trainings(SLOW)
    # another process, with nothing of the first one, in which every node has another number
    again, second = Post(Toys(names=NAMES[::-1])), Noting()
    assert post.node_of[SLOW] != again.node_of[SLOW]
    state = load(tmp_path, second)
    assert state is not None
    assert set(state.in_flight.works) >= {SLOW}
    outcome = play(again, second, rounds=4, start=state, buffer=6)
    repeated, _ = again.trainings(SLOW)
    assert round_of(repeated) == round_of(asked) == 1
    assert records_to_bytes(repeated.content) == records_to_bytes(asked.content)
    assert [record.round for record in outcome.history] == [3, 4]
    assert SLOW in outcome.history[0].cohort
    assert max(second.ages[2]) == 2
    assert [len(again.trainings(name)) for name in NAMES] == [2] * len(NAMES)


def test_a_round_that_is_tried_again_asks_nobody_twice() -> None:
    post = Post(Toys(), SLOW)
    grid = BufferedGrid(FollowedGrid(post), buffer=3)
    states: list[State] = []
    strategy = FedBuff()
    play(post, strategy, rounds=2, grid=grid, on_round=lambda state, record: states.append(state))
    assert len(post.trainings(SLOW)) == 1
    play(post, strategy, rounds=3, grid=grid, start=states[-1])
    assert len(post.trainings(SLOW)) == 1
    play(post, FedBuff(), rounds=1, grid=grid)  # from the start: nothing is under way then
    assert len(post.trainings(SLOW)) == 2
