"""FedPFT: the server draws synthetic features from Gaussian mixtures and trains a head on them.

Beitollahi, Bie, Hemati, Brunswic, Li, Chen, Zhang, "Parametric Feature Transfer: One-shot Federated
Learning with Foundation Models", 2024, arXiv:2402.01862: sites fit Gaussian mixtures to the
features of each class and send their parameters; the server samples from them and trains a softmax
head on the samples. Its private variant is one Gaussian a class, from noised means and covariances.

Built here are mixtures of the pooled data, not of every site's, because those add up, are private
by the plan, and hide in a sum under secure aggregation:

* one component: one Gaussian for each class with the covariance that the classes share, in closed
  form from the one release of statistics;
* K components: K Gaussians with diagonal covariances for each class, by expectation maximisation
  whose every step is a release of sums (:class:`fedtl.train.objectives.mixed.MixtureMoments`). The
  first sums give one Gaussian for each class; it is split in random directions, and ``em_rounds``
  steps follow. It is no longer one shot, and its noise is spread over 1 + em_rounds releases of
  C K (1 + 2 d) numbers: under a tight budget one component does better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.privacy.plan import PrivacyPlan
from fedtl.rng import stream
from fedtl.strategies.closed import ClosedForm, above_zero
from fedtl.train.classes import BIAS, Matrix, read_classes
from fedtl.train.closed_form import assembled
from fedtl.train.mixtures import (
    first_mixture,
    next_mixture,
    noised_mixture,
    sample_features,
    sample_mixture,
    softmax_head,
    split_mixture,
)
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.objectives.mixed import MEANS, VARIANCES, WEIGHTS
from fedtl.train.ridge import Statistics, add
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import SUMS
from fedtl.wire.objective import with_objective


class FedPFT(ClosedForm):
    """A softmax head on synthetic features.

    Parameters
    ----------
    samples : int
        Synthetic features in all, as many of each class; they count as the class does.
    damping : float
        λ of the head's L2 penalty λ / 2 |W|² beside the mean loss, in units of the covariance's
        mean eigenvalue.
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`; 1 is the trained head.
    components : int
        K, Gaussians for each class.
    em_rounds : int
        Steps of expectation maximisation, for more than one component: a round each, after one for
        the start.

    Attributes
    ----------
    mixture : dict of str to NDArray
        Weights ``[C, K]``, means and variances ``[C, K, d]`` so far, for more than one component.
    """

    sums_norm = 3**0.5
    """Length of 1, x and stretched squares together, for features of length one."""

    def __init__(
        self,
        *,
        samples: int = 4000,
        damping: float = 0.02,
        scale: float = 1.0,
        components: int = 1,
        em_rounds: int = 5,
    ) -> None:
        above_zero(samples=samples, damping=damping, components=components, em_rounds=em_rounds)
        super().__init__(scale=scale)
        self.samples, self.damping, self.components = samples, damping, components
        self.mixture: dict[str, Matrix] = {}
        self.told: Matrix | None = None
        self.precision = self._deviation = 0.0
        if components > 1:
            self.mechanisms, self.rounds = ("sums",), 1 + em_rounds
            self.statistic = ObjectiveName("mixture_moments", {"components": components})

    def sums_rounds(self, rounds: int) -> int:
        """Return in how many rounds sums are asked for: all."""
        return rounds

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Add the statistics, sample and train."""
        noise = self.noise.over(len(parts))
        read = read_classes(add(list(parts)), noise)
        n = max(float(read.counts.sum()), 1.0)
        rng = stream(self.seed, "synthetic features")
        drawn = sample_features(
            read, self._each(read.counts), rng, floor=noise.radius(len(read.gram)) / n
        )
        level = max(float(np.trace(read.within())) / (n * len(read.gram)), 1e-9)
        return self._trained(*drawn, read.counts, level, read.bias)

    def _each(self, counts: Matrix) -> int:
        return max(self.samples // len(counts), 1)

    def _trained(
        self, x: Matrix, y: np.ndarray, counts: Matrix, level: float, bias: float
    ) -> Matrix:
        """Return the head that is trained on draws; ``level`` is their mean variance."""
        weights = counts[y] / (self._each(counts) * max(float(counts.sum()), 1.0))
        head = softmax_head(x, y, weights, len(counts), damping=self.damping * level)
        there = np.isin(np.arange(len(counts)), y)
        return assembled(head[:, :-1], head[:, -1] * bias, there, bias)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for statistics once; or for the sums of the next step, the mixture beside."""
        if self.components == 1:
            return super().configure_train(server_round, arrays, config, grid)
        config["server-round"] = server_round
        plan, seed = config.get("plan"), config.get("seed")
        if isinstance(plan, str) and plan:
            release = PrivacyPlan.from_json(plan).release("sums")
            share = 1 / max(release.honest_sites, 1) ** 0.5
            self._deviation = share * release.noise_multiplier * release.clip_norm
        self.seed = seed if isinstance(seed, int) else 0
        if not self.mixture:
            classes, width = unpack(arrays)["weight"].shape
            self.mixture = first_mixture(classes, self.components, width - 1)
        content = RecordDict({self.configrecord_key: config})
        messages = self._construct_messages(content, list(grid.get_node_ids()), SUMS)
        return with_objective(messages, self.statistic, self.mixture)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Make the head of what came back: of a mixture, at its start and at its end."""
        if self.components == 1:
            return super().aggregate_train(server_round, replies)
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        parts = [unpack(next(iter(m.content.array_records.values())))["sum"] for m in valid]
        first = not self.mixture[WEIGHTS][:, 1:].any()
        found, counts = self.learn(parts)
        if not first and server_round < self.rounds:
            return None, None  # a head costs seconds, and only the last one is asked for
        head = (self.scale * self.head_of(found, counts)).astype("float32")
        return pack({"weight": head}), MetricRecord()

    def learn(self, parts: Sequence[Matrix]) -> tuple[dict[str, Matrix], Matrix]:
        """Add the sums of the sites and go on to the next mixture; return it and its counts.

        What the next sums are asked for with is :attr:`mixture`: after the first ones, its split.
        """
        shape = self.mixture[MEANS].shape
        total = np.sum(parts, axis=0).reshape(*shape[:2], -1)
        alive = np.asarray((self.mixture[WEIGHTS] > 0).any(axis=0))
        if self._deviation:
            found, counts = self._noised(total, self._deviation * len(parts) ** 0.5, alive)
        else:
            found, counts = next_mixture(total, self.mixture)
        split = stream(self.seed, "components")
        self.mixture = found if alive.sum() > 1 else split_mixture(found, split)
        return found, counts

    def head_of(self, mixture: Arrays, counts: Matrix) -> Matrix:
        """Return the head ``[C, d]`` that is trained on draws from a mixture."""
        classes = counts.sum(axis=1)
        rng = stream(self.seed, "synthetic features")
        drawn = sample_mixture(mixture, counts, self._each(classes), rng, bias=BIAS)
        shares = counts / max(float(counts.sum()), 1.0)
        level = float((shares * mixture[VARIANCES].mean(axis=2)).sum())
        return self._trained(*drawn, classes, max(level, 1e-9), BIAS)

    def _noised(
        self, total: Matrix, deviation: float, alive: NDArray[np.bool_]
    ) -> tuple[dict[str, Matrix], Matrix]:
        """Go on from noised sums; those of whole classes are the same in every round, and averaged.

        The first round has one component alive, and the noise of one in a class's sum.
        """
        precision = 1 / (alive.sum() * deviation**2)
        told = precision * total[:, alive].sum(axis=1)
        self.told = told if self.told is None else self.told + told
        self.precision += precision
        return noised_mixture(
            total,
            self.told / self.precision,
            self.mixture,
            deviation=deviation,
            of_whole=self.precision**-0.5,
        )
