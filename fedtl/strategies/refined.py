"""A closed form as the start of a gradient method: statistics once, then ordinary rounds.

Round 1 is any strategy of :mod:`fedtl.strategies.closed`; its head, times a temperature, is where
the others begin (FED3R+FT, arXiv:2406.01116; FedNCM+FT, arXiv:2306.03937), and they are any
strategy that asks for gradients. Or the server preconditions: with H, the mean second moments of
the features from round 1, and the sites' mean gradient g, their learning rate undone,

    W <- W - η g (H + λ I)⁻¹   (DP-FC: Mehta et al. 2023, arXiv:2211.13403)

where η = 2 never raises the loss, because ½ I ⊗ H bounds the Hessian of softmax cross-entropy
(Böhning 1992). One noised H serves all rounds and classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from fedtl.privacy.plan import PrivacyPlan
from fedtl.strategies import make_strategy
from fedtl.strategies.around import Around
from fedtl.strategies.closed import ClosedForm, above_zero, within
from fedtl.strategies.declared import Declared
from fedtl.train.closed_form import preconditioner
from fedtl.train.heads import trained_part
from fedtl.train.random_features import RandomMap
from fedtl.train.ridge import Statistics, add
from fedtl.train.ridge import unpack as full_matrix
from fedtl.train.task import TrainTask
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import WEIGHT


class Refined(Around):
    """Closed form, then gradients; all but the first round is the business of ``then``.

    Parameters
    ----------
    start : str or ClosedForm
        Round 1, by name or made with options of its own.
    then : str or Strategy
        The rounds after it, likewise.
    scale : float
        Temperature: factor on the head of round 1 in place of the start's own; 0 leaves that.
    precondition : bool
        Take preconditioned steps; made for ``then = 'fedavg'`` and one step a round
        (``train.local_steps = 1``; of several the mean gradient is taken). ``train.lr`` then does
        not matter.
    rate : float
        η; 2 is the fastest that never raises the loss, 1 bears noise better.
    damping : float
        λ, beside features of length one; under a plan at least the spectral norm of the noise on H.
    statistics_share : float
        Of the budget (of mu², see :func:`fedtl.privacy.plan.plan_for`); gradients get the rest.
        A few preconditioned steps do best with 0.8.
    """

    mechanisms = ("statistics", "gradients")

    def __init__(
        self,
        *,
        start: str | ClosedForm = "fed3r",
        then: str | Strategy = "fedavg",
        scale: float = 0.0,
        precondition: bool = False,
        rate: float = 1.0,
        damping: float = 0.01,
        statistics_share: float = 0.5,
    ) -> None:
        super().__init__(make_strategy(then) if isinstance(then, str) else then)
        above_zero(rate=rate, damping=damping)
        within(0.0, np.inf, scale=scale)
        within(0.01, 0.99, statistics_share=statistics_share)
        self.first = _closed(start)
        if scale:
            self.first.scale = scale
        if not Declared.of(self.inner).only_gradients:
            raise ValueError(f"then = {then!r} asks for more than gradients")
        if precondition and type(self.inner) is not FedAvg:
            raise ValueError(f"precondition is for then = 'fedavg', which averages, not {then!r}")
        self.precondition, self.rate, self.damping = precondition, rate, damping
        self.statistics_share = statistics_share
        self.weight = np.zeros((0, 0), np.float32)
        self._plan: PrivacyPlan | None = None
        self._site_rate = 1.0

    @property
    def shares(self) -> dict[str, float]:
        """How the budget is split over the mechanisms."""
        return {"statistics": self.statistics_share, "gradients": 1 - self.statistics_share}

    @property
    def feature_map(self) -> RandomMap | None:
        """The features that the head looks at, as the start wants."""
        return Declared.of(self.first).feature_map

    @property
    def needs_updates(self) -> bool:
        """Whether the start or what follows looks at single sites."""
        return any(Declared.of(part).needs_updates for part in (self.first, self.inner))

    @property
    def inverse(self) -> NDArray[np.float32] | None:
        """The preconditioner ``[d, d]``, from round 1 on; None without."""
        return self.memory.get("inverse")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for statistics, and from round 2 on for a step."""
        plan, task = config.get("plan"), config.get("task")
        self._plan = PrivacyPlan.from_json(plan) if isinstance(plan, str) and plan else None
        if server_round == 1:
            return self.first.configure_train(server_round, arrays, config, grid)
        if isinstance(task, str) and task:
            asked = TrainTask.from_json(task)
            self._site_rate = asked.lr_at(server_round, 0) * asked.steps
        self.weight = unpack(arrays)["weight"]
        messages = self.inner.configure_train(server_round, arrays, config, grid)
        if isinstance(kept := getattr(self.inner, "current_arrays", None), dict):
            # Flower's FedOpt compares it with the answers, which leave the map of features out
            vars(self.inner)["current_arrays"] = dict(trained_part(kept))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Solve, or go on from the solution."""
        valid = list(replies)
        if server_round == 1:
            arrays, metrics = self.first.aggregate_train(server_round, valid)
            if self.precondition and arrays is not None:
                self._remember([m for m in valid if not m.has_error()])
            return arrays, metrics
        arrays, metrics = self.inner.aggregate_train(server_round, valid)
        if arrays is None or self.inverse is None:
            return arrays, metrics
        gradient = (self.weight - unpack(arrays)["weight"]) / np.float32(self._site_rate)
        step = np.float32(self.rate) * gradient @ self.inverse
        return pack({"weight": np.asarray(self.weight - step)}), metrics

    def _remember(self, replies: Sequence[Message]) -> None:
        """Keep the preconditioner that the statistics of round 1 make."""
        parts: list[Statistics] = [
            unpack(next(iter(m.content.array_records.values()))) for m in replies
        ]
        weights = [next(iter(m.content.metric_records.values()))[WEIGHT] for m in replies]
        each = self._plan.release("gradients").public_size if self._plan else 1.0
        self.memory["inverse"] = preconditioner(
            full_matrix(add(parts)["gram"]),
            max(each * float(np.sum(weights)), 1.0),
            damping=self.damping,
            noise=self.first.noise.over(len(parts)),
        ).astype(np.float32)


def _closed(start: str | ClosedForm) -> ClosedForm:
    made = make_strategy(start) if isinstance(start, str) else start
    if not isinstance(made, ClosedForm):
        raise ValueError(f"start = {start!r} is no closed form such as 'fed3r' or 'fedncm'")
    if made.rounds > 1:
        raise ValueError(f"start = {start!r} with its options takes {made.rounds} rounds, not one")
    return copy.copy(made)
