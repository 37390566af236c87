"""What every Grid must do, as checks that run on any of them."""

from __future__ import annotations

import time

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from toys import CANARY, NAMES, WIDTH, Toys, toy_plan

from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds.check import failure_code
from fedtl.rounds.sites import describe_sites
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.wire.arrays import pack
from fedtl.wire.messages import DESCRIBE, EVALUATE, RELEASES, TRAIN, task_config

FAULTS = {"site-unreadable": "unreadable", "site-broken": "broken", "site-unbuilt": "unbuilt"}
CODES = {"site-unreadable": "data.unreadable", "site-broken": "site.failed"}
SETUP = Toys(names=(*NAMES, *FAULTS), faults=FAULTS)


def content(
    plan: PrivacyPlan | None = None, *, steps: int = 2, sampling: str = "full"
) -> RecordDict:
    task = TrainTask(rounds=3, steps=steps, lr=0.5, sampling=sampling)
    head = initial_head("linear", WIDTH, 3)
    return RecordDict({"arrays": pack(head), "config": task_config(task, plan, seed=4)})


def nodes(grid: Grid) -> dict[str, int]:
    """Return the nodes of the sites that can say who they are; a site that is not built cannot."""
    return {d.name: node for node, d in describe_sites(grid, at_least=len(SETUP.names)).items()}


def healthy(grid: Grid) -> list[int]:
    return [node for name, node in nodes(grid).items() if name in NAMES]


def send(grid: Grid, sent: RecordDict, to: list[int], kind: str = TRAIN) -> list[Message]:
    return list(grid.send_and_receive([Message(sent, node, kind) for node in to], timeout=60))


def check_one_reply_for_each_message_names_request_and_sender(grid: Grid) -> None:
    for kind in (TRAIN, EVALUATE, DESCRIBE):
        to = list(grid.get_node_ids())
        messages = [Message(content(), node, kind) for node in to]
        replies = list(grid.send_and_receive(messages, timeout=60))
        asked = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
        assert len(asked) == len(to)
        assert "" not in asked
        got = {r.metadata.reply_to_message_id: r.metadata.src_node_id for r in replies}
        assert got == asked
        assert len(replies) == len(to)
        assert {r.metadata.message_type for r in replies} == {kind}


def check_pushed_messages_are_pulled_once(grid: Grid) -> None:
    to = list(grid.get_node_ids())
    ids = list(grid.push_messages([Message(content(), node, TRAIN) for node in to]))
    assert len(set(ids)) == len(to)
    pulled: list[Message] = []
    until = time.monotonic() + 60
    while len(pulled) < len(to) and time.monotonic() < until:
        waiting = set(ids) - {r.metadata.reply_to_message_id for r in pulled}
        pulled += grid.pull_messages(sorted(waiting))
    assert sorted(r.metadata.reply_to_message_id for r in pulled) == sorted(ids)
    assert sorted(r.metadata.src_node_id for r in pulled) == sorted(to)
    assert not any(r.has_content() for r in grid.pull_messages(ids))


def check_an_unknown_message_type_fails_alone(grid: Grid) -> None:
    to = list(grid.get_node_ids())
    for kind in ("train.unheard_of", "query", "evaluate.other"):
        replies = send(grid, content(), to, kind)
        assert [r.has_error() for r in replies] == [True] * len(to)
        assert {failure_code(r) for r in replies} == {"site.failed"}
    assert all(r.has_content() for r in send(grid, content(), healthy(grid)))


def check_a_malformed_message_gets_a_code(grid: Grid) -> None:
    broken = content()
    broken["config"]["task"] = '{"rounds": 0}'
    replies = send(grid, broken, healthy(grid))
    assert {r.error.reason for r in replies} == {"recipe.invalid"}
    wide = content()
    wide["arrays"] = pack({"weight": np.zeros((3, WIDTH + 1), np.float32)})
    for kind in (TRAIN, EVALUATE):
        replies = send(grid, wide, healthy(grid), kind)
        assert {r.error.reason for r in replies} == {"head.invalid"}


def check_what_comes_too_late_gets_no_reply(grid: Grid) -> None:
    to = healthy(grid)
    messages = [Message(content(), node, TRAIN) for node in to]
    assert not list(grid.send_and_receive(messages, timeout=0.0))
    replies = send(grid, content(), to)  # and what was late then is not mistaken for an answer now
    assert len(replies) == len(to)


def check_no_epsilon_beyond_the_plan(grid: Grid) -> None:
    """A site counts its releases over all messages of a run, and stops at the end of the plan."""
    node = nodes(grid)["site-c"]
    first = send(grid, content(toy_plan(1000), steps=3), [node])[0]
    spent = int(first.content["metrics"][RELEASES])  # type: ignore[arg-type]
    second = send(grid, content(toy_plan(1000), steps=3), [node])[0]
    assert second.content["metrics"][RELEASES] == spent + 3
    twice = send(grid, content(toy_plan(spent + 6), steps=3), [node, node])
    assert sorted(r.error.reason if r.has_error() else "trained" for r in twice) == [
        "privacy.spent",
        "trained",
    ]
    assert send(grid, content(toy_plan(spent + 6), steps=1), [node])[0].has_error()


def check_a_message_is_not_changed_by_who_answers_it(grid: Grid) -> None:
    sent = content(toy_plan())
    before = {k: (dict(v.items()) if k == "config" else None) for k, v in sent.items()}
    head = sent["arrays"]["weight"].numpy()
    send(grid, sent, list(grid.get_node_ids()))
    assert {k: (dict(v.items()) if k == "config" else None) for k, v in sent.items()} == before
    np.testing.assert_array_equal(sent["arrays"]["weight"].numpy(), head)
    assert isinstance(sent["arrays"], ArrayRecord)


def check_a_failing_site_costs_nobody_else_anything(grid: Grid) -> None:
    """It answers with a code, without a word of its exception; the others get their heads."""
    by_node = {node: name for name, node in nodes(grid).items()}
    everyone = list(grid.get_node_ids())
    for plan in (None, toy_plan()):
        replies = send(grid, content(plan), everyone)
        told = {by_node.get(r.metadata.src_node_id, "site-unbuilt"): r for r in replies}
        assert {n for n, r in told.items() if r.has_content()} == set(NAMES)
        for name, code in CODES.items() | {("site-unbuilt", "site.failed")}:
            assert told[name].error.reason == code
            assert CANARY not in str(told[name])
    assert set(by_node.values()) == {*NAMES, *CODES}


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
