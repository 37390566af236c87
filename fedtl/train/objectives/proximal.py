"""FedProx's local objective."""

from __future__ import annotations

from torch import Tensor

from fedtl.train.objectives.objective import Local, LocalObjective


class Proximal(LocalObjective):
    """Pull towards the round's start: adds mu / 2 ||w - w_start||².

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
    eq. 2.

    Parameters
    ----------
    mu : float
        From 0.
    """

    def __init__(self, *, mu: float) -> None:
        if not mu >= 0:
            raise ValueError(f"mu = {mu} must be from 0")
        self.mu = mu

    def penalty_gradient(self, weights: Tensor, local: Local) -> Tensor:
        """Return mu (w - w_start)."""
        return (weights - local.start).mul_(self.mu)
