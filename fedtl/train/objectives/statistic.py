"""A statistic that anyone can script: a sum over a site's examples."""

from __future__ import annotations

from torch import Tensor


class LocalStatistic:
    """The base of sums that a strategy asks the sites for.

    Laws, on which privacy and additivity rest:

    * Row i of :meth:`rows` depends on example i only. It is clipped to the strategy's ``sums_norm``
      under a plan, then rows are added, and the noise of the plan's ``sums`` release is added.
    * The same arguments give the same bits: no random numbers, no state in ``self``.

    Constructor arguments are the options that travel with a message, keyword only.

    Examples
    --------
    >>> import torch
    >>> class Brightness(LocalStatistic):
    ...     "How many examples have a first feature above a threshold."
    ...
    ...     def __init__(self, *, above: float = 0.5) -> None:
    ...         self.above = above
    ...
    ...     def size(self, width: int, classes: int) -> int:
    ...         return 1
    ...
    ...     def rows(self, x: Tensor, y: Tensor, classes: int) -> Tensor:
    ...         return (x[:, :1] > self.above).double()
    >>> Brightness().rows(torch.tensor([[0.7], [0.1]]), torch.tensor([0, 1]), 2).sum(0)
    tensor([1.], dtype=torch.float64)
    """

    def size(self, width: int, classes: int) -> int:
        """Return how many numbers there are.

        Parameters
        ----------
        width : int
            Features per example, bias feature included.
        classes : int
            Of the federation.
        """
        raise NotImplementedError

    def rows(self, x: Tensor, y: Tensor, classes: int) -> Tensor:
        """Return each example's contribution: ``[n, size]``.

        Parameters
        ----------
        x : Tensor
            ``[n, d]`` float64 features, the last of them the bias.
        y : Tensor
            ``[n]`` class indices.
        """
        raise NotImplementedError
