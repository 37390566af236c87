"""SCAFFOLD's local step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedtl.train.objectives.objective import Local, LocalObjective, Shapes, like

CONTROL = "control"


class ControlVariates(LocalObjective):
    """Correct every step by c - c_i, the drift of site i against the federation.

    Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML
    2020, arXiv:1910.06378, algorithm 1 with option II: after the round
    c_i <- c_i - c + (x - y_i) / (K eta), here with the sum of the steps' learning rates for K eta.
    The server can compute the sum of the changes of c_i from the mean of the y_i, so a site's
    answer is as long as FedAvg's.
    """

    remembers = (CONTROL,)

    def sends(self, head: Shapes) -> Shapes:
        """Return the shapes of c."""
        return like(head, CONTROL)

    def correction(self, local: Local) -> Tensor:
        """Return c - c_i."""
        return local.received(CONTROL) - local.remembered(CONTROL)

    def remember(self, trained: Tensor, local: Local) -> Mapping[str, Tensor]:
        """Return the new c_i."""
        gradient = (local.start - trained).div_(local.path)
        return {CONTROL: gradient.add_(local.remembered(CONTROL)).sub_(local.received(CONTROL))}
