"""FedLDA: Gaussian classes with one covariance, as in FedCGS.

Guan, Zhou, Gu, "Capture Global Feature Statistics for One-Shot Federated Learning", AAAI 2025: from
Σ x, Σ x xᵀ and the class sums of all sites the server has the class means μ_c, priors π_c and the
shared covariance Σ of the pooled data, and with them the Gaussian classifier (linear discriminant
analysis, Fisher 1936): w_c = Σ⁻¹ μ_c, b_c = -½ μ_cᵀ Σ⁻¹ μ_c + ln π_c. Equal to the pooled solution
for any split of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.strategies.closed import ClosedForm, within
from fedtl.train.classes import Matrix, read_classes
from fedtl.train.closed_form import discriminant_head
from fedtl.train.ridge import Statistics, add


class FedLDA(ClosedForm):
    """Linear discriminant analysis, or naive Bayes.

    Parameters
    ----------
    shrinkage : float
        α in Σ <- (1 - α) Σ + α tr(Σ) / d I.
    naive : bool
        Only the diagonal of Σ: Gaussian naive Bayes with shared variances.
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`; 1 is the model's own probabilities.
    """

    def __init__(self, *, shrinkage: float = 0.05, naive: bool = False, scale: float = 1.0) -> None:
        within(0.0, 1.0, shrinkage=shrinkage)
        super().__init__(scale=scale)
        self.shrinkage, self.naive = shrinkage, naive

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Add the statistics and solve; eigenvalues below the noise are not believed."""
        noise = self.noise.over(len(parts))
        read = read_classes(add(list(parts)), noise)
        d = 1 if self.naive else len(read.gram)
        floor = noise.radius(d) / max(float(read.counts.sum()), 1.0)
        return discriminant_head(read, shrinkage=self.shrinkage, floor=floor, diagonal=self.naive)
