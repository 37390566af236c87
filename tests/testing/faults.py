"""Copies of known strategies with one planted fault each, and the law that has to find it.

Each class is the original but for the lines after its docstring.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedtl.strategies.fed3r import Fed3R
from fedtl.train.ridge import add, ridge_head
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import WEIGHT

Answer = tuple[ArrayRecord | None, MetricRecord | None]
ONE = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


class Momentum(FedAvg):
    """FedAvgM (Hsu et al. 2019, arXiv:1909.06335, Alg. 1) in our words: the unfaulted original."""

    beta = 0.5

    def __init__(self) -> None:
        super().__init__(**ONE)
        self.head = np.zeros((0, 0), np.float32)
        self.velocity = np.zeros((0, 0), np.float32)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.head = unpack(arrays)["weight"]
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        good = [reply for reply in replies if reply.has_content()]
        if not good:
            return None, None
        mean = self.mean([heads_of(reply) for reply in good], [weight_of(r) for r in good])
        if self.velocity.shape != mean.shape:
            self.velocity = np.zeros_like(mean)
        self.velocity = np.float32(self.beta) * self.velocity + (mean - self.head)
        return pack({"weight": self.head + self.velocity}), None

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        shares = np.array(weights) / sum(weights)
        total = sum(float(s) * h.astype(np.float64) for s, h in zip(shares, heads, strict=True))
        return np.asarray(total, np.float32)


def heads_of(reply: Message) -> np.ndarray:
    return unpack(next(iter(reply.content.array_records.values())))["weight"]


def weight_of(reply: Message) -> float:
    return float(next(iter(reply.content.metric_records.values()))[WEIGHT])  # type: ignore[arg-type]


class ChangesTheHead(Momentum):
    """Puts something of its own into the head that it was handed."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        arrays["weight"] = next(iter(pack({"weight": self.head * np.float32(0.9)}).values()))
        return messages


class SumsUp(Momentum):
    """Adds the heads where it should average them."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        return np.asarray(sum(heads), np.float32)


class AddsTheSteps(Momentum):
    """Adds the sites' steps to the head where it should average them: equal at a fixed point."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        return np.asarray(self.head + sum(head - self.head for head in heads), np.float32)


class TakesTheFirst(Momentum):
    """Believes whoever answers first more than the others."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        return super().mean(heads, [weights[0] * 3, *weights[1:]])


class RunsOn(Momentum):
    """Averages as they come, each new head against half of what was there."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        so_far = heads[0]
        for head in heads[1:]:
            so_far = np.asarray((so_far + head) / 2, np.float32)
        return so_far


class NeedsReplies(Momentum):
    """Divides by the number of replies, whatever it is."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        good = [reply for reply in replies if reply.has_content()]
        share = 1 / len(good)
        return super().aggregate_train(server_round, good) if share else (None, None)


class ForgetsFailures(Momentum):
    """Reads every reply as if it had content."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        _ = [reply.content for reply in got]
        return super().aggregate_train(server_round, got)


class CountsFailures(Momentum):
    """Takes a failure for a head of zeros."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        arrays, metrics = super().aggregate_train(server_round, got)
        if arrays is None:
            return None, metrics
        share = sum(r.has_content() for r in got) / len(got)
        return pack({"weight": np.asarray(unpack(arrays)["weight"] * share, np.float32)}), metrics


class CountsTheDead(Momentum):
    """Divides by the sites that it asked, also by those that never answered."""

    asked = 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.asked = len(messages)
        return messages

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        return np.asarray(super().mean(heads, weights) * len(heads) / self.asked, np.float32)


class DecaysWithoutReplies(Momentum):
    """Lets its velocity decay in a round that nobody answered."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        if not any(reply.has_content() for reply in got):
            self.velocity = self.velocity * np.float32(0.5) + 1
        return super().aggregate_train(server_round, got)


class ForgetsItsVelocity(Momentum):
    """Names its state itself, and leaves out the velocity."""

    def state_dict(self) -> dict[str, object]:
        return {"head": self.head}

    def load_state_dict(self, state: dict[str, object]) -> None:
        vars(self).update(state)


class HidesInAClosure(Momentum):
    """Keeps a count in a closure, where no checkpoint finds it."""

    def __init__(self) -> None:
        super().__init__()
        count = 0

        def rate() -> float:
            nonlocal count
            count += 1
            return 1 / count

        self.rate = rate

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        step = super().mean(heads, weights) - self.head
        return np.asarray(self.head + np.float32(self.rate()) * step, np.float32)


class DrawsOnAndOn(Momentum):
    """Keeps a seeded generator, whose place in its sequence no checkpoint finds."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(1)

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        mean = super().mean(heads, weights)
        return np.asarray(mean + 0.01 * self.rng.normal(size=mean.shape), np.float32)


class KeepsOnTheClass(Momentum):
    """Keeps its velocity on the class: the next run begins with that of the last."""

    _shared = np.zeros((0, 0), np.float32)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        self.velocity = KeepsOnTheClass._shared
        answer = super().aggregate_train(server_round, replies)
        KeepsOnTheClass._shared = self.velocity
        return answer


class DrawsFromEverybodys(Momentum):
    """Draws from NumPy's global generator, which nobody seeds."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        mean = super().mean(heads, weights)
        return np.asarray(mean + 0.01 * np.random.normal(size=mean.shape), np.float32)


class SeedsByNumbers(Momentum):
    """Seeds what it draws by the numbers of nodes, which Flower draws anew for every run."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        arrays, metrics = super().aggregate_train(server_round, got)
        if arrays is None:
            return None, metrics
        rng = random.Random(sum(reply.metadata.src_node_id for reply in got))
        shift = np.float32(0.01 * rng.random())
        return pack({"weight": unpack(arrays)["weight"] + shift}), metrics


class LeavesOneOut(Momentum):
    """Returns another tensor than the head has."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        arrays, metrics = super().aggregate_train(server_round, replies)
        named = None if arrays is None else pack({"weights": unpack(arrays)["weight"]})
        return named, metrics


class AnswersInDoubles(Momentum):
    """Returns float64: twice the bytes for every site of the next round."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        return pack({"weight": unpack(arrays)["weight"].astype(np.float64)}), metrics


class AnswersInARow(Momentum):
    """Returns the head as one long row."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        arrays, metrics = super().aggregate_train(server_round, replies)
        row = None if arrays is None else pack({"weight": unpack(arrays)["weight"].ravel()})
        return row, metrics


class DiesOfALoss(Momentum):
    """Divides by how many more sites than five answered."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        mean = super().mean(heads, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(mean * np.float32(len(heads) - 5) / np.float32(len(heads) - 5))


class CountsEverySiteAlike(Momentum):
    """Weighs a site of twenty examples like one of fifty."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        return super().mean(heads, [1.0] * len(heads))


class TakesExamplesForARate(Momentum):
    """Goes the further the more examples there are in all."""

    def mean(self, heads: list[np.ndarray], weights: list[float]) -> np.ndarray:
        rate = np.float32(1 - 1 / (1 + sum(weights) / 100))
        step = super().mean(heads, weights) - self.head
        return np.asarray(self.head + rate * step, np.float32)


class TakesOut(Momentum):
    """Takes the arrays out of the replies, to save memory."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        answer = super().aggregate_train(server_round, got)
        for reply in got:
            if reply.has_content():
                next(iter(reply.content.array_records.values())).pop("weight")
        return answer


class ChangesOldReplies(Momentum):
    """Keeps the replies, and writes into them a round later."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[RecordDict] = []

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        got = list(replies)
        for content in self.kept:
            next(iter(content.metric_records.values()))[WEIGHT] = 0.0
        self.kept = [reply.content for reply in got if reply.has_content()]
        return super().aggregate_train(server_round, got)


class ReturnsItsOwn(Momentum):
    """Returns the very array that it goes on computing with."""

    def __init__(self) -> None:
        super().__init__()
        self.own = np.zeros((0, 0), np.float32)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        if self.own.shape != self.head.shape:
            self.own = np.zeros_like(self.head)
        self.own[...] = unpack(arrays)["weight"]
        return pack({"weight": self.own}), metrics


class AsksNobody(Momentum):
    """Configures no messages."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        list(super().configure_train(server_round, arrays, config, grid))
        return []


class SaysNothing(Momentum):
    """Forgets its ``return``."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        super().aggregate_train(server_round, replies)
        return None  # type: ignore[return-value]


class ScalesForTheDead(Fed3R):
    """FED3R that scales the sums up to the number of sites asked: the ridge is not scaled."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.asked = len(messages)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Answer:
        good = [reply for reply in replies if reply.has_content()]
        if not good:
            return None, None
        parts = [unpack(next(iter(reply.content.array_records.values()))) for reply in good]
        total = {name: v * self.asked / len(good) for name, v in add(parts).items()}
        return pack({"weight": np.asarray(ridge_head(total, ridge=self.ridge), np.float32)}), None


FAULTS: dict[type[Strategy], str] = {
    ChangesTheHead: "inputs",
    SumsUp: "fixed point",
    AddsTheSteps: "agreement",
    TakesTheFirst: "order",
    RunsOn: "order",
    NeedsReplies: "nothing",
    ForgetsFailures: "nothing",
    CountsFailures: "failures",
    CountsTheDead: "fixed point",
    DecaysWithoutReplies: "nothing",
    ForgetsItsVelocity: "resume",
    HidesInAClosure: "resume",
    DrawsOnAndOn: "resume",
    KeepsOnTheClass: "repeat",
    DrawsFromEverybodys: "repeat",
    SeedsByNumbers: "node numbers",
    LeavesOneOut: "runs",
    AnswersInDoubles: "tensors",
    AnswersInARow: "runs",
    DiesOfALoss: "bad replies",
    CountsEverySiteAlike: "weights",
    TakesExamplesForARate: "weights",
    TakesOut: "inputs",
    ChangesOldReplies: "inputs",
    ReturnsItsOwn: "inputs",
    AsksNobody: "runs",
    SaysNothing: "runs",
    ScalesForTheDead: "missing sites",
}
"""A strategy with a fault, and the law that names it."""
