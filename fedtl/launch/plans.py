"""From a recipe to what its sites are asked to do, and under which privacy plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtl.data import Manifest, SiteRows
from fedtl.errors import PrivacyError
from fedtl.privacy.plan import PrivacyPlan, plan_for
from fedtl.recipe import Recipe
from fedtl.strategies import make_strategy
from fedtl.train.task import TrainTask


def task_of(recipe: Recipe) -> TrainTask:
    """Return the local training that a recipe asks for."""
    train = recipe.train
    return TrainTask(
        rounds=train.rounds,
        steps=train.local_steps,
        sampling=train.sampling,
        batch_size=train.batch_size,
        optimizer=train.optimizer,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        schedule=train.schedule,
        averaging=train.averaging,
        head=recipe.head.kind,
        hidden=recipe.head.hidden,
    )


FEATURE_NORM = 1.01**0.5
"""Every prepared row has unit length and a bias feature of 0.1."""


def plan_of(recipe: Recipe, *, mean_size: float) -> PrivacyPlan | None:
    """Return a recipe's privacy plan; ``mean_size`` stands in for an unnamed public size."""
    privacy, train = recipe.privacy, recipe.train
    if not privacy.enabled:
        return None
    strategy = make_strategy(recipe.strategy.name, recipe.strategy.options)
    size = float(privacy.public_size or max(round(mean_size), 1))
    gradients = getattr(strategy, "mechanism", "gradients") == "gradients"
    poisson = gradients and train.sampling == "poisson"
    return plan_for(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip_norm=privacy.clip_norm if gradients else FEATURE_NORM,
        releases=train.rounds * train.local_steps if gradients else 1,
        sampling_rate=min(1.0, train.batch_size / size) if poisson else 1.0,
        mechanism="gradients" if gradients else "statistics",
        accountant=privacy.accountant,
        public_size=size,
        unit=privacy.unit,
        unit_cap=privacy.unit_cap if privacy.unit == "group" and gradients else 0,
        noise_multiplier=privacy.noise_multiplier,
    )


def mean_units(recipe: Recipe, manifest: Manifest, rows: Sequence[SiteRows]) -> float:
    """Return the mean number of the sites' training units: examples, or groups.

    Raises
    ------
    PrivacyError
        The recipe protects groups and the data have none.
    """
    if recipe.privacy.unit == "example" or not recipe.privacy.enabled:
        return float(np.mean([len(r.train) for r in rows]))
    groups = manifest.groups
    if groups is None:
        raise PrivacyError(
            f"privacy.unit = 'group', and '{manifest.name}' has no groups.",
            next_step="Give the manifest a 'group' column, or set privacy.unit = 'example'.",
            code="plan.no-groups",
        )
    return float(np.mean([len({groups[row] for row in r.train}) for r in rows]))
