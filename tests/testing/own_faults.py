"""Faults planted in fedtl's own strategies, and in Flower's FedAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from faults import ONE, Answer
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, Strategy

from fedtl.strategies.fednova import FedNova
from fedtl.strategies.fedwhiten import FedWhiten
from fedtl.strategies.qfedavg import QFedAvg
from fedtl.strategies.robust.median import Median
from fedtl.strategies.scaffold import Scaffold
from fedtl.strategies.updates import Matrix
from fedtl.wire.arrays import pack, unpack


class ForgetsSecondMoments(FedAdam):
    """FedAdam whose v_t lies in an object, which no checkpoint looks into."""

    def __init__(self) -> None:
        self.hidden = type("Hidden", (), {"v_t": None})()
        super().__init__(**ONE)

    @property
    def v_t(self) -> Any:
        return self.hidden.v_t

    @v_t.setter
    def v_t(self, value: Any) -> None:
        self.hidden.v_t = value


class DropsItsControl(Scaffold):
    """SCAFFOLD that starts with c = 0 after a restart."""

    def state_dict(self) -> dict[str, Any]:
        return {"server_learning_rate": self.server_learning_rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class MovesItsControlInAVoidRound(Scaffold):
    """SCAFFOLD whose c shrinks when nobody answers."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        if not any(reply.has_content() for reply in got):
            self.control = {name: v * np.float32(0.5) for name, v in self.control.items()}
        return super().aggregate_train(server_round, got)


class MedianOfTheFirst(Median):
    """The median of the first five updates, however many there are."""

    def combine(self, updates: Matrix) -> Matrix:
        return super().combine(updates[:5])


class SumOfAll(Median):
    """The sum of the updates where the median should be: right while nothing moves."""

    def combine(self, updates: Matrix) -> Matrix:
        return np.asarray(updates.sum(axis=0))


class WhitensForTheDead(FedWhiten):
    """FedWhiten that divides the sums by the sites that it asked."""

    asked = 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.asked = len(messages)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        arrays, metrics = super().aggregate_train(server_round, got)
        if arrays is None or server_round > 1:
            return arrays, metrics
        share = np.float32(len(got) / self.asked)
        return pack({name: v * share for name, v in unpack(arrays).items()}), metrics


class LosesItsSpeed(FedWhiten):
    """FedWhiten whose velocity no checkpoint knows."""

    def state_dict(self) -> dict[str, Any]:
        left_out = ("velocity", "_plan")
        return {key: value for key, value in vars(self).items() if key not in left_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class NormalisesTwice(FedNova):
    """FedNova that goes as far as there are sites."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = [reply for reply in replies if reply.has_content()]
        arrays, metrics = super().aggregate_train(server_round, got)
        if arrays is None:
            return None, metrics
        factor = np.float32(1 + 0.1 * len(got))
        head = {name: v * factor for name, v in unpack(arrays).items()}
        return pack(head), metrics


class KnowsNumbersOnly(QFedAvg):
    """q-FedAvg that keeps the losses of numbers instead of sites."""

    def site(self, node: int) -> str:
        return str(node)


OWN_FAULTS: dict[type[Strategy], str] = {
    ForgetsSecondMoments: "resume",
    DropsItsControl: "resume",
    MovesItsControlInAVoidRound: "nothing",
    MedianOfTheFirst: "order",
    SumOfAll: "agreement",
    WhitensForTheDead: "missing sites",
    LosesItsSpeed: "resume",
    NormalisesTwice: "fixed point",
    KnowsNumbersOnly: "node numbers",
}
"""A strategy with a fault, and the law that names it."""
