"""The optimisers of a round: SGD with momentum and Adam, on whole stacks of heads."""

from __future__ import annotations

from torch import Tensor

from fedtl.train.task import TrainTask

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Optimizer:
    """One optimiser's state for one round; element-wise, so heads in a stack stay independent."""

    __slots__ = ("_first", "_second", "_steps", "_task")

    def __init__(self, task: TrainTask) -> None:
        self._task = task
        self._steps = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def step(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Move the weights in place."""
        self._steps += 1
        if self._task.optimizer == "adam":
            self._adam(weights, gradient, lr)
            return
        if self._task.momentum:
            # Sutskever et al. 2013, as torch.optim.SGD writes it: v <- m v + g, w <- w - lr v
            if self._first is None:
                self._first = gradient.clone()
            else:
                self._first.mul_(self._task.momentum).add_(gradient)
            gradient = self._first
        weights.sub_(gradient, alpha=lr)

    def _adam(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1."""
        if self._first is None or self._second is None:
            self._first, self._second = gradient.new_zeros(gradient.shape), gradient.square() * 0
        self._first.lerp_(gradient, 1 - _BETA1)
        self._second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        mean = self._first / (1 - _BETA1**self._steps)
        spread = (self._second / (1 - _BETA2**self._steps)).sqrt_().add_(_EPS)
        weights.addcdiv_(mean, spread, value=-lr)
