"""Secure aggregation around a run's Grid, for strategies that need no more than a sum."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.launch.federation import Federation
from fedtl.rounds.summable import check_summable
from fedtl.train.heads import initial_head
from fedtl.transport.secure import SecureAggregationGrid


def secured(
    grid: Grid, strategy: Strategy, federation: Federation, sites: Mapping[int, str]
) -> SecureAggregationGrid:
    """Return a Grid whose server learns sums only.

    Raises
    ------
    StrategyError
        The strategy needs the single updates.
    """
    recipe, width = federation.recipe, federation.width
    classes = len(federation.manifest.classes)
    head = initial_head(recipe.head.kind, width, classes, hidden=recipe.head.hidden)
    check_summable(strategy, head)
    return SecureAggregationGrid(
        grid,
        names=sites,
        head={name: values.shape for name, values in head.items()},
        statistics={"gram": (width * (width + 1) // 2,), "moment": (width, classes)},
        threshold=recipe.transport.secure_threshold,
    )
