"""Canaries: traps of Flower 1.41 that this code works around; one that stops singing is good news.

Each test shows the trap itself, so that a new Flower without it is noticed and the way around goes.
"""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from replies import heads, reply
from toys import WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity, set_message_id, with_content
from fedtl.transport.local import LocalGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import DESCRIBE, task_config


def grid() -> LocalGrid:
    toys = Toys()
    return LocalGrid(make_client_app(toys), toys.names)


def play(strategy: FedAvg, *, config: ConfigRecord | None = None, **settings: int) -> Arrays:
    there = grid()
    return run(
        there,
        strategy,
        sites={node: d.name for node, d in describe_sites(there).items()},
        start=State(0, initial_head("linear", WIDTH, 3)),
        config=config or task_config(TrainTask(rounds=2), None, seed=1),
        settings=Settings(rounds=2, seed=3, **settings),
    ).head


def test_a_message_cannot_be_made_outside_flowers_runtimes() -> None:
    code = (
        "from flwr.app import Message, RecordDict\n"
        "try:\n    Message(RecordDict(), 1, 'train')\n"
        "except RuntimeError as error:\n    print(error)\n"
        "from fedtl.transport._identity import ensure_identity\n"
        "ensure_identity(); ensure_identity()\n"
        "print(Message(RecordDict(), 1, 'train').metadata.run_id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["TaskIdentity.run_id is not set.", "1"]


def test_a_message_has_no_id_until_a_grid_writes_one() -> None:
    ensure_identity()
    message = Message(RecordDict(), 1, DESCRIBE)
    assert message.metadata.message_id == ""
    set_message_id(message, "message-9")
    assert message.metadata.message_id == "message-9"
    answer = Message(RecordDict(), reply_to=message)
    assert answer.metadata.reply_to_message_id == "message-9"


def test_all_messages_of_a_round_share_one_content_object() -> None:
    """Whoever edits his copy would edit everybody's, so a Grid in process hands out copies."""
    config = task_config(TrainTask(rounds=1), None)
    there = grid()
    strategy = make_strategy("fedavg")
    messages = list(strategy.configure_train(1, pack(heads(1)[0]), config, there))
    assert len({id(m.content) for m in messages}) == 1

    seen: list[Message] = []
    app = make_client_app(Toys())

    def spoiling(message: Message, context: object) -> Message:
        seen.append(message)
        answer = app(message, context)  # type: ignore[arg-type]
        message.content["config"]["task"] = "spoiled"
        del message.content["arrays"]
        return answer

    spoilt = LocalGrid(spoiling, Toys().names)  # type: ignore[arg-type]
    replies = list(spoilt.send_and_receive(messages))
    assert all(r.has_content() for r in replies)
    assert "arrays" in messages[0].content
    assert len({id(m.content) for m in seen}) == len(messages)


def test_with_content_keeps_the_metadata() -> None:
    ensure_identity()
    message = Message(RecordDict(), 7, DESCRIBE)
    set_message_id(message, "message-1")
    other = with_content(message, RecordDict({"more": ConfigRecord({"a": 1})}))
    assert other.metadata.message_id == "message-1"
    assert other.metadata.dst_node_id == 7
    assert "more" in other.content


def test_sampling_draws_from_the_global_random() -> None:
    """The same seed would give another cohort wherever anybody else draws from it."""
    there, before = grid(), random.getstate()
    try:
        draws = []
        for _ in range(2):
            random.seed(4)
            draws.append(sample_nodes(there, 1, 3)[0])
        random.seed(5)
        draws.append(sample_nodes(there, 1, 3)[0])
    finally:
        random.setstate(before)
    assert draws[0] == draws[1] != draws[2]


def test_runs_do_not_depend_on_the_global_random_and_leave_it_alone() -> None:
    results = []
    for seed in (1, 2):
        random.seed(seed)
        strategy = make_strategy("fedavg", {"fraction_train": 0.5})
        results.append(play(strategy)["weight"].tobytes())  # type: ignore[arg-type]
        drawn = random.random()
        random.seed(seed)
        assert drawn == random.random()
    assert results[0] == results[1]


def test_strategies_write_into_the_callers_config() -> None:
    config = task_config(TrainTask(rounds=2), None)
    list(make_strategy("fedprox").configure_train(1, pack(heads(1)[0]), config, grid()))
    assert {"server-round", "proximal-mu"} <= set(config)

    own = task_config(TrainTask(rounds=2), None, seed=1)
    play(make_strategy("fedprox"), config=own)  # type: ignore[arg-type]
    assert set(own) == {"task", "plan", "seed"}


def test_fedmedian_empties_the_replies_it_gets() -> None:
    replies = [reply(1000 + at, h) for at, h in enumerate(heads(3))]
    FedMedian(min_train_nodes=1, min_available_nodes=1).aggregate_train(1, replies)
    assert [unpack(r.content["arrays"]) for r in replies] == [{}, {}, {}]


@pytest.mark.parametrize(
    "minimum", ["min_train_nodes", "min_available_nodes", "min_evaluate_nodes"]
)
def test_a_strategy_that_would_wait_for_ever_is_refused(minimum: str) -> None:
    """Flower's sampling sleeps until there are enough nodes, and here there never will be."""
    with pytest.raises(StrategyError, match=f"{minimum} = 7, but only 6 sites take part") as error:
        play(make_strategy("fedavg", {minimum: 7}))  # type: ignore[arg-type]
    assert minimum in error.value.next_step


def test_the_minimum_counts_the_cohort_not_the_federation() -> None:
    with pytest.raises(StrategyError, match="only 4 sites take part"):
        play(
            FedAvg(min_train_nodes=5, min_evaluate_nodes=1, min_available_nodes=1),
            sites_per_round=4,
        )
