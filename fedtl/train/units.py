"""Units of more than one example, such as a patient with several images.

The summed gradient of a unit's examples, for a linear softmax head, is ``Σ r_i x_iᵀ`` with the
residuals ``r = p - y``. Its squared Frobenius norm is ``Σ_ij (r_i · r_j) (x_i · x_j)``, and the
products ``x_i · x_j`` never change: with them a unit is clipped exactly, and no gradient of a unit
is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Units:
    """Which rows belong together.

    Attributes
    ----------
    of_row : Tensor
        ``[n]`` int64, the unit of each row, 0 to ``count - 1``.
    count : int
        Number of units.
    first, second : Tensor
        ``[P]`` int64, the pairs of rows within a unit, a row with itself included.
    products : Tensor
        ``[P]`` float32, inner product of the pair's features, doubled for two different rows.
    """

    of_row: Tensor
    count: int
    first: Tensor
    second: Tensor
    products: Tensor

    @classmethod
    def of(cls, x: Tensor, groups: Sequence[str]) -> Units:
        """Find the units of ``[n, d]`` features, row ``i`` belonging to ``groups[i]``."""
        names, of_row = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        order = np.argsort(of_row, kind="stable")
        ends = np.cumsum(np.bincount(of_row, minlength=len(names)))[:-1]
        pairs, products = [np.zeros((2, 0), np.int64)], [torch.zeros(0)]
        for rows in np.split(order, ends) if len(order) else []:
            a, b = np.triu_indices(len(rows))
            own = x[torch.from_numpy(rows)]
            both = (own @ own.T)[torch.from_numpy(a), torch.from_numpy(b)]
            pairs.append(np.stack([rows[a], rows[b]]))
            products.append(both * torch.from_numpy(1.0 + (a != b)).float())
        first, second = torch.from_numpy(np.concatenate(pairs, axis=1))
        return cls(torch.from_numpy(of_row), len(names), first, second, torch.cat(products))

    @classmethod
    def joined(cls, parts: Sequence[Units]) -> Units:
        """Join the units of several sites, whose rows follow one another."""
        rows = np.cumsum([0, *(len(part.of_row) for part in parts)])
        units = np.cumsum([0, *(part.count for part in parts)])
        return cls(
            torch.cat([p.of_row + int(u) for p, u in zip(parts, units, strict=False)]),
            int(units[-1]),
            torch.cat([p.first + int(r) for p, r in zip(parts, rows, strict=False)]),
            torch.cat([p.second + int(r) for p, r in zip(parts, rows, strict=False)]),
            torch.cat([p.products for p in parts]),
        )

    def taking(self, rows: Tensor) -> Units:
        """Return the units of chosen rows; the numbers of units stay, some without rows."""
        place = torch.full((len(self.of_row),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        first, second = place[self.first], place[self.second]
        kept = (first >= 0) & (second >= 0)
        return Units(self.of_row[rows], self.count, first[kept], second[kept], self.products[kept])

    def to(self, device: torch.device) -> Units:
        """Return the same units on a device."""
        first, second = self.first.to(device), self.second.to(device)
        return Units(self.of_row.to(device), self.count, first, second, self.products.to(device))

    @property
    def sizes(self) -> Tensor:
        """``[count]``, rows of each unit."""
        return torch.bincount(self.of_row, minlength=self.count)

    def within(self, cap: int) -> Tensor:
        """Return the numbers of the first ``cap`` rows of each unit, in order."""
        order = torch.argsort(self.of_row, stable=True)
        sizes = self.sizes
        begins = torch.cumsum(sizes, 0) - sizes
        rank = torch.arange(len(order)) - begins[self.of_row[order]]
        return order[rank < cap].sort().values

    def clip(self, residuals: Tensor, clip_norm: float) -> Tensor:
        """Scale ``[n, C]`` residuals so that each unit's summed gradient has at most this norm.

        The input is overwritten and returned.
        """
        both = (residuals[self.first] * residuals[self.second]).sum(dim=1).mul_(self.products)
        squares = residuals.new_zeros(self.count)
        squares.index_add_(0, self.of_row[self.first], both)
        norms = squares.clamp_(min=0).sqrt_().clamp_(min=clip_norm)
        return residuals.mul_((clip_norm / norms)[self.of_row].unsqueeze(1))
