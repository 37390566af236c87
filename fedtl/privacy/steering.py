"""What steps of an MLP head may be asked for beside cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Steering(Protocol):
    """What may be asked for beside cross-entropy; no hook but ``loss`` sees an example."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the examples' losses, each of its own row only."""

    def correct(self, name: str, gradient: Tensor, weights: Tensor) -> None:
        """Add to the gradient of a tensor in place, after clipping and noise."""

    def after_step(self, name: str, weights: Tensor) -> None:
        """Change a tensor in place after a step."""


class CrossEntropy:
    """Cross-entropy and nothing else."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the examples' cross-entropies."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(scores, y, reduction="sum")

    def correct(self, name: str, gradient: Tensor, weights: Tensor) -> None:
        """Add nothing."""

    def after_step(self, name: str, weights: Tensor) -> None:
        """Change nothing."""
