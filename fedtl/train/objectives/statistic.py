"""A statistic that anyone can script: a sum over a site's examples."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedtl.train.objectives.objective import Shapes


class LocalStatistic:
    """The base of sums that a strategy asks the sites for.

    Laws, on which privacy and additivity rest:

    * Row i of :meth:`rows` depends on example i only. It is clipped to the strategy's ``sums_norm``
      under a plan, then rows are added, and the noise of the plan's ``sums`` release is added.
    * The same arguments give the same bits: no random numbers, no state in ``self``.

    What is asked for again and again, of a model that the server has by then, comes beside the
    request: see :meth:`sends` and :meth:`rows_beside`.

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

    by_class: bool = False
    """Whether rows are added up for each class by itself: a row has ``size / classes`` numbers."""

    def size(self, width: int, classes: int) -> int:
        """Return how many numbers there are in all.

        Parameters
        ----------
        width : int
            Features per example, bias feature included.
        classes : int
            Of the federation.
        """
        raise NotImplementedError

    def sends(self, width: int, classes: int) -> Shapes:
        """Return the shapes of the arrays that the server sends beside; none by default."""
        return {}

    def rows(self, x: Tensor, y: Tensor, classes: int) -> Tensor:
        """Return each example's contribution: ``[n, size]``, or less where ``by_class``.

        Parameters
        ----------
        x : Tensor
            ``[n, d]`` float64 features, the last of them the bias.
        y : Tensor
            ``[n]`` class indices.
        """
        raise NotImplementedError

    def rows_beside(self, x: Tensor, y: Tensor, classes: int, sent: Mapping[str, Tensor]) -> Tensor:
        """Return the same, given what the server sent; by default :meth:`rows`.

        Parameters
        ----------
        sent : mapping of str to Tensor
            float64, of the shapes that :meth:`sends` names.
        """
        return self.rows(x, y, classes)
