"""Two questions in one message: the same answers as in two, whichever of them fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from toys import NAMES, WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.rounds.check import usable_evaluations, usable_replies
from fedtl.site.policy import SitePolicy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.together import TogetherGrid
from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.arrays import pack
from fedtl.wire.evaluation import evaluation_config
from fedtl.wire.messages import EVALUATE, TRAIN, records, task_config

HEAD = initial_head("linear", WIDTH, 3)
SITES = dict(enumerate(NAMES[:3], 1000))


@dataclass
class Seen(WrappedGrid):
    """Notes what travels."""

    inner: Grid
    kinds: list[str] = field(default_factory=list)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        self.kinds += [m.metadata.message_type for m in sent]
        return self.inner.send_and_receive(sent, timeout=timeout)


def grids(toys: Toys) -> tuple[Seen, TogetherGrid]:
    seen = Seen(LocalGrid(make_client_app(toys), toys.names))
    return seen, TogetherGrid(seen)


def questions(*, other_head: bool = False) -> tuple[list[Message], list[Message]]:
    config = task_config(TrainTask(rounds=3, steps=2), None, seed=1)
    config["server-round"] = 2
    arrays, more = pack(HEAD), {n: v + np.float32(1) for n, v in HEAD.items()}
    asked = evaluation_config(config, round_=1, confusion=True)
    train = RecordDict({"arrays": arrays, "config": config})
    evaluate = RecordDict({"arrays": pack(more) if other_head else pack(HEAD), "config": asked})
    return (
        [Message(train, node, TRAIN) for node in SITES],
        [Message(evaluate, node, EVALUATE) for node in SITES],
    )


def told(grid: Grid, train: list[Message], evaluate: list[Message]) -> tuple[object, ...]:
    """Return everything that a server makes of the replies."""
    replies = list(grid.send_and_receive([*train, *evaluate]))
    kinds = [r.metadata.message_type for r in replies]
    updates = [r for r, kind in zip(replies, kinds, strict=True) if kind == TRAIN]
    results = [r for r, kind in zip(replies, kinds, strict=True) if kind == EVALUATE]
    usable, failures = usable_replies(train, updates, SITES, HEAD)
    found, unevaluated = usable_evaluations(evaluate, results, SITES, HEAD)
    heads = {
        SITES[r.metadata.src_node_id]: records(r.content, ArrayRecord)[0]["weight"].data
        for r in usable
    }
    return heads, failures, {n: e.losses for n, (_, e) in found.items()}, unevaluated


def test_a_message_that_asks_both_gets_both_answers() -> None:
    seen, grid = grids(Toys(names=NAMES[:3]))
    both = told(grid, *questions())
    assert seen.kinds == [TRAIN] * 3
    assert both == told(seen, *questions())
    assert not both[1]
    assert set(both[0]) == set(both[2]) == set(SITES.values())  # type: ignore[call-overload]


@pytest.mark.parametrize("refused", ["training", "evaluation"])
def test_one_answer_may_fail_without_the_other(refused: str) -> None:
    policy = {
        "training": SitePolicy(clear_metrics=True),
        "evaluation": SitePolicy(unprotected=True),
    }[refused]
    toys = Toys(names=NAMES[:3], simulated=False)
    for name in toys.names:
        toys.site(name).policy = SitePolicy(unprotected=True, clear_metrics=True)
    toys.site(NAMES[1]).policy = policy
    seen, grid = grids(toys)
    heads, failures, losses, unevaluated = told(grid, *questions())
    if refused == "training":
        assert (failures, unevaluated) == ({NAMES[1]: "policy.unprotected"}, {})
    else:
        assert (failures, unevaluated) == ({}, {NAMES[1]: "policy.metrics"})
    assert (heads, failures, losses, unevaluated) == told(seen, *questions())


def test_a_site_that_answers_nothing_answers_neither() -> None:
    _, grid = grids(Toys(names=NAMES[:3], faults={NAMES[0]: "unbuilt"}))
    _, failures, _, unevaluated = told(grid, *questions())
    assert (failures, unevaluated) == ({NAMES[0]: "site.failed"}, {NAMES[0]: "site.failed"})


def test_what_carries_another_head_travels_by_itself_in_the_same_phase() -> None:
    seen, grid = grids(Toys(names=NAMES[:3]))
    both = told(grid, *questions(other_head=True))
    assert seen.kinds == [TRAIN] * 3 + [EVALUATE] * 3
    assert not both[1]
    assert not both[3]


@pytest.mark.parametrize(
    "answer",
    [
        RecordDict(),
        RecordDict({"failures": MetricRecord({"train": 1})}),
        RecordDict({"failures": ConfigRecord({"train": 7}), "evaluation": ConfigRecord()}),
    ],
)
def test_nonsense_is_an_answer_to_neither(answer: RecordDict) -> None:
    class Lying(WrappedGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            return [Message(RecordDict(dict(answer.items())), reply_to=m) for m in messages]

    grid = TogetherGrid(Lying(LocalGrid(make_client_app(Toys()), NAMES)))
    heads, failures, _, unevaluated = told(grid, *questions())
    assert not heads
    assert set(failures.values()) == set(unevaluated.values()) == {"message.invalid"}  # type: ignore[attr-defined]
