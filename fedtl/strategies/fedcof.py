"""FedCOF: covariances for free, estimated from how the sites' class means differ.

Goswami, Magistri, Wang, Twardowski, Bagdanov, van de Weijer, "Covariances for Free: Exploiting Mean
Distributions for Training-free Federated Learning", NeurIPS 2025, arXiv:2412.14326: sites send
class means μ_kc and counts n_kc only; the server estimates every class's covariance from the spread
of these means (:func:`fedtl.train.closed_form.means_only_head`) and solves a ridge problem with the
within-class scatter. The estimate is unbiased where sites draw a class's examples alike, and good
where many sites have the class; with one site each it is FedNCM.

It needs the means of single sites. Their sum has no spread, so it is refused under secure
aggregation, and not additive: another split of the same data is another head. The Gram matrix that
comes with the release of statistics is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.strategies.closed import ClosedForm, above_zero
from fedtl.train.classes import Matrix
from fedtl.train.closed_form import means_only_head
from fedtl.train.ridge import Statistics


class FedCOF(ClosedForm):
    """Ridge head with covariances from class means.

    Parameters
    ----------
    shrinkage : float
        α, of the covariance's mean eigenvalue, added to its diagonal (γ of the paper, whose 0.1
        suits features of another length).
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`.
    """

    needs_updates = True

    def __init__(self, *, shrinkage: float = 0.3, scale: float = 10.0) -> None:
        above_zero(shrinkage=shrinkage)
        super().__init__(scale=scale)
        self.shrinkage = shrinkage

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Estimate the covariances and solve."""
        return means_only_head(parts, noise=self.noise, shrinkage=self.shrinkage)
