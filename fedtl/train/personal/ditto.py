"""Ditto's personal heads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedtl.train.objectives import Local, LocalObjective, Shapes, like
from fedtl.train.personal.personal import Made, PersonalHead, Turn

_ANCHOR = "anchor"


class Ditto(PersonalHead):
    """Train a head beside the global one, held to it by a spring.

    Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization",
    ICML 2021, arXiv:2012.04221, algorithm 1: v <- v - eta (∇F(v) + lambda (v - w)), as many steps
    as the federation takes, towards the global head w of that time. The spring is taken as a
    proximal step, v <- (v - eta ∇F(v) + eta lambda w) / (1 + eta lambda): the same to first order
    in eta, and it overshoots for no lambda (Parikh and Boyd 2014, Proximal Algorithms, 4.2).

    Parameters
    ----------
    strength : float
        lambda: 0 is training alone from the first global head, much is the global head.
    """

    def __init__(self, *, strength: float = 0.01) -> None:
        if not strength >= 0:
            raise ValueError(f"strength = {strength} must be from 0")
        self.strength = strength

    def make(self, turn: Turn) -> Made:
        """Take the steps that are due."""
        own = turn.fit(
            turn.kept or turn.head,
            objective=Spring(turn.rate * self.strength),
            sent={f"{_ANCHOR}/{name}": values for name, values in turn.head.items()},
        )
        return Made([own], own)


class Spring(LocalObjective):
    """After every step, w <- (w + pull anchor) / (1 + pull)."""

    def __init__(self, pull: float) -> None:
        self.pull = pull

    def sends(self, head: Shapes) -> Shapes:
        """Return the shapes of the anchor."""
        return like(head, _ANCHOR)

    def after_step(self, weights: Tensor, local: Local) -> None:
        """Pull."""
        pulled(weights, local.sent, local.name, self.pull)


def pulled(weights: Tensor, sent: Mapping[str, Tensor], name: str, pull: float) -> Tensor:
    """Move weights towards the anchor in place, and return them.

    Examples
    --------
    >>> import torch
    >>> pulled(torch.tensor([3.0]), {"anchor/weight": torch.tensor([1.0])}, "weight", 1.0)
    tensor([2.])
    """
    return weights.add_(sent[f"{_ANCHOR}/{name}"], alpha=pull).div_(1 + pull)
