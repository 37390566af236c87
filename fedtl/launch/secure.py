"""Secure aggregation around a run's Grid, for strategies that need no more than a sum."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.launch.terms import Terms
from fedtl.rounds.summable import check_summable
from fedtl.strategies.declared import Declared
from fedtl.train.additive import shapes
from fedtl.train.heads import features_of, trained_part
from fedtl.transport.journal import Journal
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.wire.messages import ADDITIVE, TRAIN


def secured(
    grid: Grid,
    strategy: Strategy,
    terms: Terms,
    sites: Mapping[int, str],
    journal: Journal | None = None,
) -> SecureAggregationGrid:
    """Return a Grid whose server learns sums only.

    Raises
    ------
    StrategyError
        The strategy needs the single updates.
    """
    head, says = terms.initial_head(strategy), Declared.of(strategy)
    width, classes = features_of(head, terms.width), len(terms.classes)
    check_summable(strategy, head)
    return SecureAggregationGrid(
        grid,
        names=sites,
        shapes={
            TRAIN: {name: values.shape for name, values in trained_part(head).items()},
            **{
                kind: shapes(name, width, classes, size=says.sums_size(width, classes))
                for kind, name in ADDITIVE.items()
            },
        },
        threshold=terms.recipe.transport.secure_threshold,
        journal=journal,
    )
