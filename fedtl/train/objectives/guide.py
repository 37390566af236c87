"""An objective at work on one array of a head, or none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedtl.train.objectives.bound import Bound, invalid
from fedtl.train.objectives.objective import Local, LocalObjective


@dataclass(frozen=True, slots=True)
class Guide:
    """What the steps of a round ask an objective."""

    rule: LocalObjective | None = None
    local: Local | None = None
    correction: Tensor | None = None

    @classmethod
    def of(cls, objective: Bound | None, weights: Tensor, name: str = "weight") -> Guide:
        """Return the guide of a round that begins at ``[S, *shape]`` weights.

        Raises
        ------
        FedtlError
            With code ``objective.invalid``: a hook returned something of another shape.
        """
        if objective is None:
            return cls()
        local = objective.local(name, weights.clone())
        correction = objective.rule.correction(local)
        if correction is not None:
            _check(objective.rule, "correction", correction, weights)
        return cls(objective.rule, local, correction)

    def residuals(self, scores: Tensor, y: Tensor) -> Tensor | None:
        """Return the examples' residuals; None for those of cross-entropy."""
        if self.rule is None or self.local is None:
            return None
        own = self.rule.residuals(scores, y, self.local.sent)
        if own is not None:
            _check(self.rule, "residuals", own, scores)
        return own

    def correct(self, gradient: Tensor, weights: Tensor) -> None:
        """Add correction and penalty to a gradient in place."""
        if self.rule is None or self.local is None:
            return
        if self.correction is not None:
            gradient.add_(self.correction)
        penalty = self.rule.penalty_gradient(weights, self.local)
        if penalty is not None:
            _check(self.rule, "penalty_gradient", penalty, weights)
            gradient.add_(penalty)

    def after_step(self, weights: Tensor) -> None:
        """Let the objective change the weights in place."""
        if self.rule is not None and self.local is not None:
            self.rule.after_step(weights, self.local)


def _check(rule: LocalObjective, hook: str, found: Tensor, like: Tensor) -> None:
    if found.shape != like.shape:
        raise invalid(
            rule, f"returns {hook} in the shape {list(found.shape)}, not {list(like.shape)}"
        )
