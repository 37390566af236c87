"""What a server knows of a run before the first round; the data are not among it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedtl.backbone import BackboneCard
from fedtl.recipe import Recipe
from fedtl.strategies.declared import Declared
from fedtl.train.heads import initial_head


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sites of a run agree on.

    Attributes
    ----------
    card : BackboneCard
        Of the backbone that makes the features.
    classes : tuple of str
        In order.
    """

    recipe: Recipe
    card: BackboneCard
    classes: tuple[str, ...]

    @property
    def width(self) -> int:
        """Features per example, bias feature included."""
        return self.card.width + 1

    def initial_head(self, strategy: Strategy) -> dict[str, np.ndarray]:
        """Return the head that every site starts from, with what the strategy wants in it."""
        says = Declared.of(strategy)
        return initial_head(
            self.recipe.head.kind,
            self.width,
            len(self.classes),
            hidden=self.recipe.head.hidden,
            seed=self.recipe.seed,
            directions=says.directions,
            feature_map=says.feature_map,
        )
