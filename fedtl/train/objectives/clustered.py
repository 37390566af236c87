"""How well each of some heads does at a site: what says to which of them the site belongs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedtl.train.objectives.objective import Shapes
from fedtl.train.objectives.statistic import LocalStatistic

HEADS = "heads"


class ClusterLosses(LocalStatistic):
    """Cross-entropy of k linear heads, each less the mean of the k.

    Which head has the smallest loss is in the differences, and what all heads find hard is not: so
    one example moves the sums by less, and needs less noise to be hidden.

    Parameters
    ----------
    clusters : int
        k, from 2.

    Examples
    --------
    Of a head that always says class 0 with odds 9 : 1 and one that says class 1, for class 0:

    >>> heads = torch.tensor([[[9.0], [1.0]], [[1.0], [9.0]]], dtype=torch.float64).log()
    >>> x, y = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    >>> ClusterLosses().rows_beside(x, y, 2, {"heads": heads}).exp().numpy().round(4).tolist()
    [[0.3333, 3.0]]
    """

    def __init__(self, *, clusters: int = 2) -> None:
        if clusters < 2:
            raise ValueError(f"clusters = {clusters} must be at least 2")
        self.clusters = clusters

    def size(self, width: int, classes: int) -> int:
        """Return k."""
        return self.clusters

    def sends(self, width: int, classes: int) -> Shapes:
        """Return the shape of the heads: ``[k, C, d]``."""
        return {HEADS: (self.clusters, classes, width)}

    def rows_beside(self, x: Tensor, y: Tensor, classes: int, sent: Mapping[str, Tensor]) -> Tensor:
        """Return each example's losses in nats, centred: ``[n, k]``."""
        losses = torch.stack(
            [torch.nn.functional.cross_entropy(x @ h.T, y, reduction="none") for h in sent[HEADS]],
            dim=1,
        )
        return losses - losses.mean(dim=1, keepdim=True)
