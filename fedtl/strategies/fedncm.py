"""FedNCM: nearest class means, the head that needs the least, and bears the most noise.

Legate, Bernier, Caccia, Oyallon, Belilovsky, "Guiding the Last Layer in Federated Learning with
Pre-Trained Models", NeurIPS 2023, arXiv:2306.03937: sites send their class sums s_kc and counts
n_kc; the server makes μ_c = Σ_k s_kc / Σ_k n_kc and the head w_c = μ_c / |μ_c|, which answers the
class whose mean has the largest cosine with the features.

Here the sums come with the Gram matrix of one release of statistics, which FedNCM does not look at:
one release serves all closed forms, at the price of sqrt(2) times the noise of sums alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.strategies.closed import ClosedForm
from fedtl.train.classes import Matrix, read_classes
from fedtl.train.closed_form import centroid_head
from fedtl.train.ridge import Statistics, add


class FedNCM(ClosedForm):
    """Cosine with the class means.

    Parameters
    ----------
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`.
    """

    def __init__(self, *, scale: float = 10.0) -> None:
        super().__init__(scale=scale)

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Add the statistics and take the means."""
        noise = self.noise.over(len(parts))
        return centroid_head(read_classes(add(list(parts)), noise))
