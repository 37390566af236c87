"""What the loop over rounds is told, and what it tells of each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedtl.types import Evaluation


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop needs to know.

    Attributes
    ----------
    rounds : int
        Rounds in all, those of an earlier part of a resumed run included.
    sites_per_round : int
        Cohort size; 0 takes every site.
    seed : int
        The run's seed, for cohorts.
    evaluate_every : int
        Rounds between evaluations at the sites; the last round is always evaluated.
    metrics : {"clear", "noised", "off"}
        Whether sites are asked for evaluations at all, and for the confusion in the last round only
        (its noise costs something) or in every round.
    timeout : float or None
        Seconds to wait for the replies of one phase.
    least_updates : int
        Usable updates below which a round does not count.
    together : bool
        Whether a head is evaluated by the messages that carry it into the next round, so that a
        round costs one phase.
    """

    rounds: int
    sites_per_round: int = 0
    seed: int = 1
    evaluate_every: int = 1
    timeout: float | None = None
    metrics: Literal["clear", "noised", "off"] = "clear"
    least_updates: int = 1
    together: bool = False

    def due(self, round_: int) -> bool:
        """Say whether a round is evaluated."""
        if self.metrics == "off":
            return False
        every = self.evaluate_every
        return round_ == self.rounds or bool(every and round_ % every == 0)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What happened in one round.

    Attributes
    ----------
    round : int
        From 1.
    cohort : tuple of str
        Sites asked to train; of a round that does not wait for all, those whose training ended in
        it, and in a run's last round those that were still at it.
    failures : mapping of str to str
        Site to failure code, for those whose update was not used.
    mechanism : str
        What the sites were asked to release: gradients or statistics.
    releases : mapping of str to int
        Site to its private releases of that kind so far, for those that answered.
    evaluations : mapping of str to Evaluation
        Site to its held-out result; empty in rounds without an evaluation.
    unevaluated : mapping of str to str
        Site to failure code, for those that were asked for a result and gave none.
    seconds_train, seconds_aggregate, seconds_evaluate : float
        Wall-clock seconds; those of training are virtual where time is.
    """

    round: int
    cohort: tuple[str, ...]
    failures: Mapping[str, str]
    mechanism: str
    releases: Mapping[str, int]
    evaluations: Mapping[str, Evaluation]
    unevaluated: Mapping[str, str]
    seconds_train: float
    seconds_aggregate: float
    seconds_evaluate: float

    @property
    def pooled(self) -> Evaluation:
        """The sum over all sites' held-out examples; what is noised is summed before it is cut."""
        told = [e for e in self.evaluations.values() if e.measured]
        cells = [e.confusion for e in told if e.confusion is not None]
        return Evaluation(
            sum(e.wrong for e in told),
            sum(e.right for e in told),
            sum(e.losses for e in told),
            np.sum(cells, axis=0) if cells else None,
            max((e.releases for e in told), default=0),
        )

    @property
    def accuracy(self) -> float:
        """Accuracy over all sites' held-out examples; nan without an evaluation."""
        return self.pooled.accuracy

    @property
    def loss(self) -> float:
        """Mean loss over all sites' held-out examples; nan without an evaluation."""
        return self.pooled.loss


@dataclass(frozen=True, slots=True)
class Results:
    """What the sites said of a round's head."""

    evaluations: Mapping[str, Evaluation]
    unevaluated: Mapping[str, str]

    def on(self, record: RoundRecord) -> RoundRecord:
        """Return the round's record with them."""
        return replace(record, evaluations=self.evaluations, unevaluated=self.unevaluated)
