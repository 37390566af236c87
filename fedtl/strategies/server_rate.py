"""A learning rate at the server, and its schedule, around any strategy.

The step that the strategy inside would take is scaled: x <- x + eta_t (x_next - x), as eta_g in
Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.errors import nearest
from fedtl.strategies.around import Around
from fedtl.strategies.local import task_of
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack

SCHEDULES = ("constant", "cosine", "linear", "step")


class ServerRate(Around):
    """Scale the server's steps by a rate that falls over the run.

    Not around strategies that keep a head of their own from round to round (fedavgm, fedadam and
    the like have a server learning rate themselves).

    Parameters
    ----------
    rate : float
        eta of the first round; 1 leaves the step as it is.
    schedule : {"constant", "cosine", "linear", "step"}
        How it falls until the last round; ``step`` multiplies by ``factor`` every ``every`` rounds.
    every : int
        Rounds, for ``step``.
    factor : float
        For ``step``.
    warmup : int
        Rounds over which it rises linearly first.
    """

    def __init__(
        self,
        inner: Strategy,
        *,
        rate: float = 1.0,
        schedule: str = "constant",
        every: int = 10,
        factor: float = 0.5,
        warmup: int = 0,
    ) -> None:
        super().__init__(inner)
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule = {schedule!r} is unknown. {nearest(schedule, SCHEDULES)}")
        if not (rate > 0 and every >= 1 and 0 < factor <= 1 and warmup >= 0):
            raise ValueError(
                f"rate = {rate}, every = {every}, factor = {factor}, warmup = {warmup}: rate and "
                "factor must be above 0, factor at most 1, every from 1, warmup from 0"
            )
        self.rate, self.schedule = rate, schedule
        self.every, self.factor, self.warmup = every, factor, warmup
        self._head: Arrays = {}
        self._rounds = 1

    def rate_at(self, round_: int, rounds: int) -> float:
        """Return eta of a round (from 1) of a run.

        Examples
        --------
        >>> from flwr.serverapp.strategy import FedAvg
        >>> rule = ServerRate(FedAvg(), rate=1.0, schedule="cosine")
        >>> [round(rule.rate_at(r, 4), 3) for r in (1, 2, 3, 4)]
        [1.0, 0.854, 0.5, 0.146]
        """
        done = (round_ - 1) / rounds
        falling = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "linear": 1 - done,
            "step": self.factor ** ((round_ - 1) // self.every),
        }[self.schedule]
        return self.rate * falling * min(1.0, round_ / (self.warmup + 1))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head that goes out."""
        self._head, self._rounds = unpack(arrays), task_of(config).rounds
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Go a part of the way to where the strategy inside would go."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        rate = self.rate_at(server_round, max(self._rounds, server_round))
        moved = {
            name: np.asarray(self._head[name] + rate * (values - self._head[name]), values.dtype)
            for name, values in unpack(arrays).items()
        }
        return pack(moved), metrics
