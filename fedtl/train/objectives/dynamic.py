"""FedDyn's local objective."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedtl.train.objectives.objective import Local, LocalObjective

DUAL = "dual"


class DynamicRegulariser(LocalObjective):
    """Add -<g_i, w> + alpha / 2 ||w - w_start||², whose optimum agrees with the federation's.

    Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, arXiv:2111.04263,
    algorithm 1; g_i is the site's gradient at its last solution: g_i <- g_i - alpha (w - w_start).

    Parameters
    ----------
    alpha : float
        Above 0.
    """

    remembers = (DUAL,)

    def __init__(self, *, alpha: float) -> None:
        if not alpha > 0:
            raise ValueError(f"alpha = {alpha} must be above 0")
        self.alpha = alpha

    def correction(self, local: Local) -> Tensor:
        """Return -g_i."""
        return -local.remembered(DUAL)

    def penalty_gradient(self, weights: Tensor, local: Local) -> Tensor:
        """Return alpha (w - w_start)."""
        return (weights - local.start).mul_(self.alpha)

    def remember(self, trained: Tensor, local: Local) -> Mapping[str, Tensor]:
        """Return the new g_i."""
        return {DUAL: (local.start - trained).mul_(self.alpha).add_(local.remembered(DUAL))}
