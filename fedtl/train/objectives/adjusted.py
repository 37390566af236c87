"""Cross-entropy that knows how frequent the classes are, and the counts it needs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedtl.train.objectives.objective import LocalObjective, Shapes
from fedtl.train.objectives.statistic import LocalStatistic

LOG_PRIOR = "log_prior"


class LogitAdjusted(LocalObjective):
    """Train on softmax(scores + tau log prior), so that the scores themselves favour no class.

    Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, arXiv:2007.07314, eq. 10;
    with a site's own frequencies it is the calibration of Zhang et al., "Federated Learning with
    Label Distribution Skew via Logits Calibration", ICML 2022, arXiv:2209.00189.

    Parameters
    ----------
    tau : float
        From 0, which is plain cross-entropy.
    """

    def __init__(self, *, tau: float = 1.0) -> None:
        if not tau >= 0:
            raise ValueError(f"tau = {tau} must be from 0")
        self.tau = tau

    def sends(self, head: Shapes) -> Shapes:
        """Return the shape of the log frequencies: one for each class."""
        outputs = head["weight"] if "weight" in head else head["out.bias"]
        return {LOG_PRIOR: (outputs[0],)}

    def residuals(self, scores: Tensor, y: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        """Return softmax(scores + tau log prior) - one_hot(y)."""
        shares = torch.softmax(scores + self.tau * sent[LOG_PRIOR].to(scores), dim=-1)
        return shares.scatter_(-1, y.unsqueeze(-1), -1.0, reduce="add")


class ClassCounts(LocalStatistic):
    """How many examples each class has; one example moves the counts by at most 1."""

    def size(self, width: int, classes: int) -> int:
        """Return the number of classes."""
        return classes

    def rows(self, x: Tensor, y: Tensor, classes: int) -> Tensor:
        """Return one_hot(y)."""
        return torch.nn.functional.one_hot(y, classes)
