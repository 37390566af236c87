"""FED3R: a ridge head in one round, equal to the pooled solution for any split of the data.

Fani, Camoriano, Caputo, Ciccone, "Accelerating Heterogeneous Federated Learning with Closed-form
Classifiers", ICML 2024, arXiv:2406.01116: each site sends A = Σ x xᵀ and b = Σ x yᵀ once; the
server adds them and solves (A + λ I) W = b. FED3R-RF does the same on random Fourier features
sqrt(2 / D) cos(Ω x + β) (:mod:`fedtl.train.random_features`).

AFL (He et al., CVPR 2025) sends local solutions instead and joins them by its "absolute
aggregation" law; with its regulariser removed the result is the same head, so there is no strategy
of that name here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.strategies.closed import ClosedForm, above_zero
from fedtl.train.classes import Matrix
from fedtl.train.random_features import RandomMap
from fedtl.train.ridge import Statistics, add, ridge_head


class Fed3R(ClosedForm):
    """Ridge regression onto one-hot labels.

    Parameters
    ----------
    ridge : float
        λ, on features of about unit length. Under a plan at least the spectral norm of the noise.
    normalise : bool
        Scale each class's weights to unit length.
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`.
    random_features : int
        D random Fourier features in place of the backbone's, drawn from the run's seed; 0: none.
        A site sends D² / 2 numbers.
    length_scale : float
        l of random features.
    """

    def __init__(
        self,
        *,
        ridge: float = 0.1,
        normalise: bool = False,
        scale: float = 10.0,
        random_features: int = 0,
        length_scale: float = 1.0,
    ) -> None:
        above_zero(ridge=ridge)
        super().__init__(scale=scale)
        self.ridge, self.normalise = ridge, normalise
        self.random_features, self.length_scale = random_features, length_scale
        _ = self.feature_map  # impossible ones are refused here

    @property
    def feature_map(self) -> RandomMap | None:
        """The features that the head looks at; None are the backbone's."""
        if not self.random_features:
            return None
        return RandomMap(self.random_features, self.length_scale)

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Add the statistics and solve."""
        return ridge_head(
            add(list(parts)),
            ridge=self.ridge,
            noise_sd=self.noise.over(len(parts)).gram,
            normalise=self.normalise,
        )
