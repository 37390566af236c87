"""FedPer's and FedRep's local step: the last layer stays at the site."""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.train.objectives.objective import LocalObjective, Shapes

LAYER = "out."


class OwnLayer(LocalObjective):
    """Share the layers below, keep the last one.

    * FedPer: all layers move in every step (Arivazhagan et al. 2019, arXiv:1912.00818, section
      3.2).
    * FedRep: first the last layer moves alone, then the others alone (Collins et al. 2021,
      arXiv:2102.07078, algorithm 1).

    The shared layer is an adapter over the frozen features: the hidden layer of an MLP head.

    Parameters
    ----------
    head_steps : int
        Of a round's steps, those in which the last layer moves alone, at most all but one; 0: all
        layers always move.
    """

    def __init__(self, *, head_steps: int = 0) -> None:
        if head_steps < 0:
            raise ValueError(f"head_steps = {head_steps} must be from 0")
        self.head_steps = head_steps

    def keeps(self, head: Shapes) -> Sequence[str]:
        """Return the arrays of the last layer; of a linear head all of it."""
        return [name for name in head if name.startswith(LAYER)] or list(head)

    def moves(self, name: str, step: int, steps: int) -> bool:
        """Say whether it is this layer's turn."""
        alone = min(self.head_steps, steps - 1)
        return not alone or name.startswith(LAYER) == (step < alone)
