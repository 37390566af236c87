"""What a strategy hands back: whatever is wrong is said with method, round, line and cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toys import WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import task_config

BEGIN = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from fedtl.wire.arrays import pack

class Mine(FedAvg):
"""
METHODS = {
    "configure_train": "server_round, arrays, config, grid",
    "aggregate_train": "server_round, replies",
    "configure_evaluate": "server_round, arrays, config, grid",
    "aggregate_evaluate": "server_round, replies",
    "finished": "",
}
CASES = {
    "asks nothing": ("configure_train", "pass", "configure_train returned None."),
    "asks a text": ("configure_train", "return ['hello']", "configure_train returned a str."),
    "asks a number": ("configure_evaluate", "return 7", "configure_evaluate returned an int."),
    "no return": ("aggregate_train", "pass", "aggregate_train returned None."),
    "one value": ("aggregate_train", "return ArrayRecord()", "returned an ArrayRecord."),
    "a dict": ("aggregate_train", "return {'weight': 1}, None", "returned a dict."),
    "no tensor": ("aggregate_train", "return ArrayRecord(), None", "it has no tensor at all"),
    "another tensor": (
        "aggregate_train",
        "return pack({'bias': np.ones(3, np.float32)}), None",
        "the tensor 'bias' is none of the head's (weight)",
    ),
    "another shape": (
        "aggregate_train",
        "return pack({'weight': np.ones(3, np.float32)}), None",
        "'weight' has shape (3,) instead of (3, 6)",
    ),
    "not finite": (
        "aggregate_train",
        "return pack({'weight': np.full((3, 6), np.nan, np.float32)}), None",
        "'weight' has values that are not finite",
    ),
    "raises": (
        "aggregate_train",
        "return self.nothing",
        "Mine.aggregate_train failed in round 1 at line 9 of mine.py: AttributeError",
    ),
    "raises in training": (
        "configure_train",
        "return config['nothing']",
        "Mine.configure_train failed in round 1 at line 9 of mine.py: KeyError",
    ),
    "raises in evaluation": (
        "aggregate_evaluate",
        "return 1 + 'one'",
        "Mine.aggregate_evaluate failed in round 1 at line 9 of mine.py: TypeError",
    ),
    "ends the process": (
        "aggregate_train",
        "raise SystemExit(3)",
        "Mine.aggregate_train failed in round 1 at line 9 of mine.py: SystemExit: 3.",
    ),
    "integers": (
        "aggregate_train",
        "return ArrayRecord({'weight': Array(np.ones((3, 6), np.int64))}), None",
        "returned no float32 in round 1: 'weight' is int64",
    ),
    "evaluates in training": (
        "configure_train",
        "return [Message(RecordDict(), n, 'evaluate') for n in grid.get_node_ids()]",
        "Mine.configure_train returned a message of type 'evaluate'.",
    ),
    "trains in evaluation": (
        "configure_evaluate",
        "return [Message(RecordDict(), n, 'train') for n in grid.get_node_ids()]",
        "Mine.configure_evaluate returned a message of type 'train'.",
    ),
    "asks twice": (
        "configure_train",
        "return 2 * list(super().configure_train(server_round, arrays, config, grid))",
        "Mine.configure_train returned two messages for one site.",
    ),
    "raises when asked whether it is finished": (
        "finished",
        "return 1 / 0 > 1",
        "Mine.finished failed in round 1 at line 10 of mine.py: ZeroDivisionError",
    ),
    "value error": ("aggregate_train", "raise ValueError('few')", "could not combine 6 updates"),
}


@pytest.fixture
def play(tmp_path: Path) -> Callable[[str, str], None]:
    def played(method: str, body: str) -> None:
        kind = "    @property\n" if method == "finished" else ""
        (tmp_path / "mine.py").write_text(
            f"{BEGIN}{kind}    def {method}(self, {METHODS[method]}):\n        {body}\n"
        )
        toys = Toys()
        grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
        run(
            grid,
            make_strategy(f"{tmp_path / 'mine.py'}:Mine"),
            sites={node: d.name for node, d in describe_sites(grid).items()},
            start=State(0, initial_head("linear", WIDTH, 3)),
            config=task_config(TrainTask(rounds=1), None, seed=1),
            settings=Settings(1),
        )

    return played


@pytest.mark.parametrize("what", CASES)
def test_what_a_strategy_does_wrong_is_said(what: str, play: Callable[[str, str], None]) -> None:
    method, body, problem = CASES[what]
    with pytest.raises(StrategyError) as error:
        play(method, body)
    assert problem in error.value.problem
    assert "Mine" in error.value.problem
    assert error.value.next_step


def test_what_it_does_right_is_not(play: Callable[[str, str], None]) -> None:
    play("aggregate_train", "return None, None")
    play("configure_evaluate", "return iter(())")
    play("aggregate_evaluate", "return None")
