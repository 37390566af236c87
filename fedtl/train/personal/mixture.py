"""Mixing the global head with one of the site's own, by validation."""

from __future__ import annotations

import numpy as np

from fedtl.errors import RecipeError
from fedtl.train.personal.apfl import mixed
from fedtl.train.personal.personal import Made, PersonalHead, Turn


class Mixture(PersonalHead):
    """lambda alone + (1 - lambda) global, with the lambda of the smallest held-out loss.

    Mansour, Mohri, Ro, Suresh, "Three Approaches for Personalization with Applications to Federated
    Learning", 2020, arXiv:2002.10619, section 5 (model interpolation). A mixture of linear heads is
    the same mixture of their scores.

    Parameters
    ----------
    parts : int
        lambda is one of 0, 1 / parts, ..., 1.
    """

    def __init__(self, *, parts: int = 10) -> None:
        if not 1 <= parts <= 100:
            raise ValueError(f"parts = {parts} must be 1 to 100")
        self.parts = parts

    def make(self, turn: Turn) -> Made:
        """Return all mixtures, the global head first."""
        if "weight" not in turn.head:
            raise RecipeError(
                "Only linear heads are mixed: a mixture of MLPs is no mixture of their scores.",
                next_step="Set head.kind = 'linear', or choose ditto, apfl or fine_tuned.",
                code="objective.invalid",
            )
        shares = np.linspace(0, 1, self.parts + 1)
        return Made([mixed(turn.alone(), turn.head, float(share)) for share in shares])
