"""What a strategy can take: differential privacy, secure aggregation, noise that is shared out."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds.summable import check_summable
from fedtl.strategies.declared import Declared
from fedtl.testing.bench import (
    CLASSES,
    NAMES,
    WIDTH,
    config_of,
    differs,
    local_grid,
    plan_of,
    play,
    rounds_of,
    start_head,
)
from fedtl.testing.trial import Trial
from fedtl.testing.verdict import Broken, given, told
from fedtl.train.additive import shapes
from fedtl.train.heads import features_of, trained_part
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.types import Arrays
from fedtl.wire.messages import ADDITIVE, TRAIN

_SUMS = "sums only"
_HONEST = 4
"""As many sites as have to stay to the end."""
_EXACT = 1e-3
"""How far a head may be off because updates are rounded to whole numbers before they are hidden."""


def privacy(trial: Trial) -> None:
    """Make a finite head under a plan of differential privacy."""
    _ = trial.steps
    strategy = trial.new()
    what = "a plan that covers " + ", ".join(r.mechanism for r in plan_of(strategy).releases)
    with given(what, expected="a finite head"):
        config = config_of(strategy, plan=plan_of(strategy), steps=1)
        head = play(strategy, local_grid(), config=config).head
    if not all(np.isfinite(values).all() for values in head.values()):
        raise Broken(what, expected="a finite head", seen="one that is not")


def secure_aggregation(trial: Trial) -> str:
    """Say whether secure aggregation can hide the single updates."""
    _ = trial.steps
    if _SUMS not in trial.found:
        trial.found[_SUMS] = _sums_only(trial)
    return trial.found[_SUMS]


def _sums_only(trial: Trial) -> str:
    try:
        check_summable(trial.new(), trial.start())
        hidden = _hidden(trial.new(), None)
        plain = _plain(trial.new())
    except StrategyError as error:
        return f"no: {error.problem}"
    except (Exception, SystemExit) as error:  # whatever it raises, it cannot take it
        return f"no: {told(error)}"
    if difference := differs(hidden, plain, tolerance=_EXACT):
        return f"no: it makes another head of sums ({difference})"
    return "yes"


def distributed_noise(trial: Trial) -> str:
    """Say whether sites can share the noise out, so that only their hidden sum is private."""
    answer = secure_aggregation(trial)
    if answer != "yes":
        return "no: it cannot take secure aggregation"
    strategy = trial.new()
    try:
        head = _hidden(strategy, plan_of(strategy, honest_sites=_HONEST))
    except (Exception, SystemExit) as error:  # whatever it raises, it cannot take it
        return f"no: {told(error)}"
    finite = all(np.isfinite(values).all() for values in head.values())
    return "yes" if finite else "no: its head is not finite"


def _plain(strategy: Strategy) -> Arrays:
    config = config_of(strategy, steps=1)
    return play(strategy, local_grid(), rounds=rounds_of(strategy, 1), config=config).head


def _hidden(strategy: Strategy, plan: PrivacyPlan | None) -> Arrays:
    """Return the head of a run whose updates are hidden in their sum."""
    inner, head = local_grid(), start_head(strategy)
    trained = {name: values.shape for name, values in trained_part(head).items()}
    width, classes = features_of(head, WIDTH), len(CLASSES)
    size = Declared.of(strategy).sums_size(width, classes)
    grid = SecureAggregationGrid(
        inner,
        names=dict(zip(inner.get_node_ids(), NAMES, strict=True)),
        shapes={
            TRAIN: trained,
            **{kind: shapes(name, width, classes, size=size) for kind, name in ADDITIVE.items()},
        },
    )
    config = config_of(strategy, plan=plan, steps=1)
    return play(strategy, grid, rounds=rounds_of(strategy, 1), config=config).head
