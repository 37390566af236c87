"""FedPFT: the server draws synthetic features from Gaussian classes and trains a head on them.

Beitollahi, Bie, Hemati, Brunswic, Li, Chen, Zhang, "Parametric Feature Transfer: One-shot Federated
Learning with Foundation Models", 2024, arXiv:2402.01862: sites fit Gaussian mixtures to the
features of each class and send their parameters; the server samples from them and trains a softmax
head on the samples. Its private variant is one Gaussian a class, from noised means and covariances.

Built here is one Gaussian for each class of the pooled data, with the covariance that the classes
share, as post-processing of the one release of statistics: private by the plan, and hidden in a sum
under secure aggregation. Left out are mixtures of more than one component and a covariance for each
class: K components of every class of every site do not add up, so that they could be neither hidden
in a sum nor noised once, and they cost C d² numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtl.rng import stream
from fedtl.strategies.closed import ClosedForm, above_zero
from fedtl.train.classes import Matrix, read_classes
from fedtl.train.closed_form import assembled
from fedtl.train.mixtures import sample_features, softmax_head
from fedtl.train.ridge import Statistics, add


class FedPFT(ClosedForm):
    """A softmax head on synthetic features.

    Parameters
    ----------
    samples : int
        Synthetic features in all, as many of each class; they count as the class does.
    damping : float
        λ of the head's L2 penalty λ / 2 |W|² beside the mean loss, in units of the covariance's
        mean eigenvalue.
    scale : float
        See :class:`fedtl.strategies.closed.ClosedForm`; 1 is the trained head.
    """

    def __init__(self, *, samples: int = 4000, damping: float = 0.02, scale: float = 1.0) -> None:
        above_zero(samples=samples, damping=damping)
        super().__init__(scale=scale)
        self.samples, self.damping = samples, damping

    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Add the statistics, sample and train."""
        noise = self.noise.over(len(parts))
        read = read_classes(add(list(parts)), noise)
        n = max(float(read.counts.sum()), 1.0)
        rng = stream(self.seed, "synthetic features")
        each = max(self.samples // len(read.counts), 1)
        x, y = sample_features(read, each, rng, floor=noise.radius(len(read.gram)) / n)
        weights = read.counts[y] / (each * n)
        level = max(float(np.trace(read.within())) / (n * len(read.gram)), 1e-9)
        head = softmax_head(x, y, weights, len(read.counts), damping=self.damping * level)
        return assembled(head[:, :-1], head[:, -1] * read.bias, read)
