"""Whether a strategy may run where single updates are hidden is found out, not looked up."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fedtl.errors import StrategyError
from fedtl.rounds.summable import check_summable
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.wire.arrays import pack, unpack

HEAD = initial_head("linear", 6, 3)


class Half(FedAvg):
    """Goes half the way to the mean: its own code, and no more than the mean is needed."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        return pack({n: np.asarray(v / 2, np.float32) for n, v in unpack(arrays).items()}), metrics


class Loudest(FedAvg):
    """Takes the update with the largest norm."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        heads = [unpack(next(iter(r.content.array_records.values()))) for r in replies]
        return pack(max(heads, key=lambda h: float(np.linalg.norm(h["weight"])))), None


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "fedyogi", "fed3r", "fedwhiten"])
def test_strategies_of_a_mean_are_accepted_and_left_alone(name: str) -> None:
    strategy = make_strategy(name)
    before = copy.deepcopy(vars(strategy))
    check_summable(strategy, HEAD)
    assert set(vars(strategy)) == set(before)
    for key, value in before.items():
        now = vars(strategy)[key]
        assert now is value or np.array_equal(now, value), key


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "krum"])
def test_strategies_that_look_at_single_updates_are_refused(name: str) -> None:
    strategy = make_strategy(name)
    with pytest.raises(StrategyError, match="needs the sites' single updates") as error:
        check_summable(strategy, HEAD)
    assert error.value.code == "strategy.needs-updates"
    assert "fedavg" in error.value.next_step


def test_somebodys_own_strategy_is_tried_too() -> None:
    check_summable(Half(min_train_nodes=1, min_available_nodes=1), HEAD)
    with pytest.raises(StrategyError, match="Loudest needs"):
        check_summable(Loudest(min_train_nodes=1, min_available_nodes=1), HEAD)
