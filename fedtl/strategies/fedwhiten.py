"""Heads on privately whitened features: two rounds of statistics, then momentum on noisy gradients.

Full-batch DP gradient descent on a frozen backbone's features is slowed down by their geometry, not
by its noise: a shared mean and a few strong directions. This strategy pays for both once, with a
small part of the budget, and whitens with them (:mod:`fedtl.train.whitening`):

1. round 1: the mean m of the features, from the noised sums Σ u;
2. round 2: the strong directions of unit(u - m), from the noised Gram matrix Σ u uᵀ;
3. from round 3 on, with T rounds left: sites take one step from the head W, whose noisy mean
   gradient is g; the server's heavy ball goes on (server momentum as in FedAvgM, Hsu et al. 2019,
   arXiv:1909.06335): v <- β v + g, W <- W - η v, with η = speed * evenness / T.

Subtracting the mean first is due to DPSGD-F (Sun et al. 2023, arXiv:2307.11106); one noised Gram
matrix as a preconditioner for all steps, to DP-FC (Mehta et al. 2022, arXiv:2211.13403). Here it
acts on the features before gradients are clipped, not on the gradients after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.additive import gram_deviation
from fedtl.train.ridge import unpack as full_matrix
from fedtl.train.task import TrainTask
from fedtl.train.whitening import MEAN, PULL, spectrum
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import COVARIANCE, WEIGHT
from fedtl.wire.messages import MEAN as ASK_MEAN


class FedWhiten(FedAvg):
    """Whiten, then descend with momentum; evaluation is FedAvg's.

    It is made for one step a round (``train.local_steps = 1``): the server undoes the sites'
    learning rate, so that ``train.lr`` does not matter. Of several steps it takes the mean
    gradient.

    Parameters
    ----------
    directions : int
        Most directions that are damped; each costs a column of d numbers in every message to a
        site.
    damping : float
        Strong directions are damped to this share of the noise's spectral radius.
    momentum : float
        β.
    speed : float
        How far all rounds together go, in units of the reciprocal curvature.
    mean_share, covariance_share : float
        Of the budget (of mu², see :func:`fedtl.privacy.plan.plan_for`); gradients get the rest.
    min_train_nodes, min_evaluate_nodes, min_available_nodes : int
        As in Flower's FedAvg.
    """

    mechanisms = ("mean", "covariance", "gradients")

    def __init__(
        self,
        *,
        directions: int = 64,
        damping: float = 0.25,
        momentum: float = 0.8,
        speed: float = 40.0,
        mean_share: float = 0.02,
        covariance_share: float = 0.2,
        min_train_nodes: int = 1,
        min_evaluate_nodes: int = 1,
        min_available_nodes: int = 1,
    ) -> None:
        for name, value, top in (
            ("directions", directions, np.inf),
            ("damping", damping, np.inf),
            ("speed", speed, np.inf),
            ("mean_share", mean_share, 1 - covariance_share),
            ("covariance_share", covariance_share, 1),
        ):
            if not 0 < value < top:
                raise ValueError(f"{name} = {value} must be above 0 and below {top:g}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum = {momentum} must be from 0 and below 1")
        super().__init__(
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
        )
        self.directions, self.damping = directions, damping
        self.momentum, self.speed = momentum, speed
        self.mean_share, self.covariance_share = mean_share, covariance_share
        self.evenness = 1.0
        self.weight = self.velocity = np.zeros((0, 0), np.float32)
        self._plan: PrivacyPlan | None = None
        self._rate, self._rounds_left = 1.0, 1

    @property
    def shares(self) -> dict[str, float]:
        """How the budget is split over the mechanisms."""
        rest = 1 - self.mean_share - self.covariance_share
        return {"mean": self.mean_share, "covariance": self.covariance_share, "gradients": rest}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for the mean, for second moments, and from round 3 on for a step."""
        self._read(server_round, config)
        if server_round > 2:
            self.weight = unpack(arrays)["weight"]
            return super().configure_train(server_round, arrays, config, grid)
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        kind = ASK_MEAN if server_round == 1 else COVARIANCE
        return self._construct_messages(content, list(grid.get_node_ids()), kind)

    def _read(self, server_round: int, config: ConfigRecord) -> None:
        """Learn what the run promises and how the sites step."""
        plan, task = config.get("plan"), config.get("task")
        self._plan = PrivacyPlan.from_json(plan) if isinstance(plan, str) and plan else None
        if isinstance(task, str) and task:
            asked = TrainTask.from_json(task)
            self._rate = asked.lr_at(server_round, 0) * asked.steps
            self._rounds_left = max(asked.rounds - 2, 1)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Turn sums into the whitening, or updates into a step."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        if server_round > 2:
            average, metrics = super().aggregate_train(server_round, valid)
            if average is None:
                return None, metrics
            return pack({"weight": self._step(unpack(average)["weight"])}), metrics
        parts = [unpack(next(iter(m.content.array_records.values()))) for m in valid]
        found = self._mean(parts, valid) if server_round == 1 else self._pull(parts, valid)
        return pack(found), MetricRecord()

    def _examples(self, replies: Sequence[Message]) -> float:
        """Return how many examples the sums are over: a public number under a plan."""
        each = self._plan.release("gradients").public_size if self._plan else 1.0
        weights = [next(iter(r.content.metric_records.values()))[WEIGHT] for r in replies]
        return each * float(np.sum(weights))

    def _mean(self, parts: Sequence[Arrays], replies: Sequence[Message]) -> Arrays:
        total = np.sum([part["sum"] for part in parts], axis=0)
        return {MEAN: (total / self._examples(replies)).astype(np.float32)}

    def _pull(self, parts: Sequence[Arrays], replies: Sequence[Message]) -> Arrays:
        n = self._examples(replies)
        noise = 0.0
        if self._plan is not None:
            release = self._plan.release("covariance")
            of_sum = len(parts) / max(release.honest_sites, 1)
            noise = gram_deviation(release) * of_sum**0.5
        moments = full_matrix(np.sum([part["gram"] for part in parts], axis=0) / n)
        read = spectrum(
            moments,
            noise_sd=noise / n,
            directions=min(self.directions, len(moments)),
            damping=self.damping,
        )
        self.evenness = read.evenness
        return {PULL: read.pull}

    def _step(self, average: np.ndarray) -> np.ndarray:
        gradient = (self.weight - average) / np.float32(self._rate)
        if self.velocity.shape != gradient.shape:
            self.velocity = np.zeros_like(gradient)
        self.velocity = np.float32(self.momentum) * self.velocity + gradient
        rate = self.speed * self.evenness / self._rounds_left
        return np.asarray(self.weight - np.float32(rate) * self.velocity, np.float32)
