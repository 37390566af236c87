"""Grids around Grids: bytes that are counted right, and sites that are lost by name."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from replies import packed
from toys import NAMES, WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.wrappers import DropoutGrid, MeteredGrid
from fedtl.wire.messages import EVALUATE, TRAIN, task_config


def messages(
    round_: int = 1, kind: str = TRAIN, *, nodes: range = range(1000, 1006)
) -> list[Message]:
    config = task_config(TrainTask(rounds=9), None, seed=1)
    config["server-round"] = round_
    head = packed(np.zeros((3, WIDTH), np.float32))
    content = RecordDict({"arrays": head, "config": config})
    return [Message(content, node, kind) for node in nodes]


def local(toys: Toys | None = None) -> LocalGrid:
    toys = toys or Toys()
    return LocalGrid(make_client_app(toys), toys.names)


def test_traffic_is_counted_per_node_and_taken_once() -> None:
    grid = MeteredGrid(local(Toys(faults={"site-b": "unreadable"})))
    list(grid.send_and_receive(messages()))
    list(grid.send_and_receive(messages(nodes=range(1000, 1001))))
    one = packed(np.zeros((3, WIDTH), np.float32))["weight"]
    traffic = grid.traffic.take()
    serialised = len(one.data)
    assert traffic.down[1002] == pytest.approx(serialised, abs=64)
    assert traffic.down[1000] == 2 * traffic.down[1002]
    assert traffic.up[1000] == 2 * traffic.up[1002]
    assert traffic.up[1001] == 0  # a failure carries no arrays
    assert traffic.seconds > 0
    again = grid.traffic.take()
    assert (again.down, again.up, again.seconds) == ({}, {}, 0.0)


def lost(grid: DropoutGrid, round_: int, kind: str = TRAIN) -> set[int]:
    replies = grid.send_and_receive(messages(round_, kind))
    return set(range(1000, 1006)) - {r.metadata.src_node_id for r in replies}


def test_who_drops_out_depends_on_seed_round_and_name_alone() -> None:
    """Node ids are random on Flower's runtimes; another id must not lose another site."""
    names = dict(zip(range(1000, 1006), NAMES, strict=True))
    first = DropoutGrid(local(), rate=0.5, seed=1, names=names)
    by_round = [lost(first, r) for r in range(1, 30)]
    again = DropoutGrid(local(), rate=0.5, seed=1, names=names)
    assert [lost(again, r) for r in range(29, 0, -1)] == by_round[::-1]
    other = DropoutGrid(local(), rate=0.5, seed=2, names=names)
    assert [lost(other, r) for r in range(1, 30)] != by_round
    moved = dict(zip(range(1000, 1006), reversed(NAMES), strict=True))
    mirrored = DropoutGrid(local(), rate=0.5, seed=1, names=moved)
    assert [{2005 - n for n in lost(mirrored, r)} for r in range(1, 30)] == by_round


def test_the_share_that_drops_out_is_the_asked_one() -> None:
    names = dict(zip(range(1000, 1006), NAMES, strict=True))
    grid = DropoutGrid(local(), rate=0.3, seed=4, names=names)
    share = np.mean([len(lost(grid, r)) / 6 for r in range(1, 200)])
    assert abs(share - 0.3) < 4.5 * (0.21 / (6 * 199)) ** 0.5


def test_evaluations_never_drop_out() -> None:
    names = dict(zip(range(1000, 1006), NAMES, strict=True))
    grid = DropoutGrid(local(), rate=0.99, seed=1, names=names)
    assert lost(grid, 1, EVALUATE) == set()


def test_everything_else_reaches_the_grid_inside() -> None:
    inner = local()
    grid = MeteredGrid(DropoutGrid(inner, rate=0.5, seed=1, names={}))
    assert list(grid.get_node_ids()) == list(inner.get_node_ids())
    assert grid.run is inner.run
    grid.set_run(inner.run)
    made = grid.create_message(RecordDict(), EVALUATE, 1001, "group", ttl=60.0)
    assert (made.metadata.dst_node_id, made.metadata.group_id) == (1001, "group")
    (message_id,) = grid.push_messages(messages(nodes=range(1003, 1004)))
    (answer,) = grid.pull_messages([message_id])
    assert answer.metadata.src_node_id == 1003
