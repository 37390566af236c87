"""How well defences hold against attacks: one accuracy per attack, share of bad sites and defence.

Whatever the recipe says of privacy is left out: what is compared are rules, not budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedtl.apps.client import make_client_app
from fedtl.errors import RecipeError
from fedtl.home import write_atomic
from fedtl.launch.attacks import attacked
from fedtl.launch.federation import Federation, Sites
from fedtl.recipe import Recipe
from fedtl.recipe.load import checked_recipe
from fedtl.rng import stream
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.train.task import TrainTask
from fedtl.transport.attacks import STRENGTHS
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import task_config

ATTACKS = (*STRENGTHS, "label_flip")
"""All attacks."""
SHARES = (0.1, 0.2, 0.3, 0.4)
"""Shares of bad sites, below every breakdown point of a half."""
DEFENCES: dict[str, dict[str, Any]] = {
    "average": {"name": "fedavg"},
    "median": {"name": "median"},
    "trimmed mean": {"name": "trimmed_mean", "options": {"share": 0.4}},
    "Krum": {"name": "krum"},
    "Multi-Krum": {"name": "multikrum"},
    "Bulyan": {"name": "bulyan"},
    "RFA": {"name": "rfa"},
    "centred clipping": {"name": "centred_clipping"},
    "norm bounding": {"name": "norm_bounding"},
    "NNM + median": {"name": "median", "around": {"nnm": {}}},
    "bucketing + median": {"name": "median", "around": {"bucketing": {"size": 2}}},
}
"""Label to ``[strategy]`` table; FLTrust needs a root set (:func:`write_root`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one defence made of one attack.

    Attributes
    ----------
    attack, defence : str
        ``"none"`` or one of :data:`ATTACKS`, and the defence's label.
    share : float
        Of the sites that were to be bad; 0 without an attack.
    accuracy : float
        Of the last head, over all sites' held-out examples, which are never poisoned.
    by_round : tuple of float
        The same after every round.
    """

    attack: str
    share: float
    defence: str
    accuracy: float
    by_round: tuple[float, ...]


def robustness(
    federation: Federation,
    *,
    attacks: Sequence[str] = ATTACKS,
    shares: Sequence[float] = SHARES,
    defences: Mapping[str, Mapping[str, Any]] = DEFENCES,
) -> list[Row]:
    """Run every defence without an attack, and against every attack at every share of bad sites.

    Parameters
    ----------
    federation : Federation
        Its recipe says how sites train; its tables of strategy, attack and privacy are replaced.
    defences : mapping of str to mapping
        Label to ``[strategy]`` table.

    Raises
    ------
    RecipeError
        An unknown attack, a share of less than one site, or a table that is no strategy's.
    """
    return list(_rows(federation, attacks, shares, defences))


def _rows(
    federation: Federation,
    attacks: Sequence[str],
    shares: Sequence[float],
    defences: Mapping[str, Mapping[str, Any]],
) -> Iterator[Row]:
    plain: list[tuple[str, float]] = [("none", 0.0)]
    for attack, share in plain + [(a, s) for a in attacks for s in shares]:
        for label, table in defences.items():
            recipe = _recipe(federation.recipe, attack, share, table)
            told = _accuracies(replace(federation, recipe=recipe))
            yield Row(attack, share, label, told[-1], told)


def _recipe(recipe: Recipe, attack: str, share: float, table: Mapping[str, Any]) -> Recipe:
    """Return the recipe of one cell, checked like one that was read."""
    values = recipe.model_dump(exclude_none=True)
    values["strategy"] = dict(table)
    values["attack"] = {"kind": attack, **({"share": share} if share else {})}
    values["privacy"] = {"enabled": False}
    values["transport"] = {**values["transport"], "secure": False}
    return checked_recipe(values, f"the recipe of {table.get('name')} against {attack}")


def _accuracies(federation: Federation) -> tuple[float, ...]:
    """Run the rounds in this process; return the accuracy after each."""
    recipe, strategy = federation.recipe, strategy_of(federation.recipe)
    site_of = Sites.of(federation, {})
    grid = StackedGrid(make_client_app(site_of), federation.names, site_of=site_of)
    names = {node: d.name for node, d in describe_sites(grid).items()}
    outcome = run(
        attacked(recipe, grid, names),
        strategy,
        sites=names,
        start=State(0, federation.terms.initial_head(strategy)),
        config=task_config(TrainTask.of(recipe), None, seed=recipe.seed),
        settings=Settings(
            rounds=Declared.of(strategy).rounds or recipe.train.rounds,
            sites_per_round=recipe.train.sites_per_round,
            seed=recipe.seed,
        ),
    )
    return tuple(record.accuracy for record in outcome.history)


def write_root(federation: Federation, file: Path, *, size: int = 100) -> Path:
    """Write a root set for FLTrust: true training examples of all sites, drawn by the seed.

    They stand for what a server would have collected itself; held-out examples are not among them.

    Parameters
    ----------
    file : Path
        Ends in ``.npz``; replaced.
    size : int
        Examples.

    Raises
    ------
    RecipeError
        There are not so many.
    """
    starts = np.cumsum([0, *(len(r.train) + len(r.test) for r in federation.rows)])
    rows = np.concatenate(
        [np.arange(at, at + len(r.train)) for at, r in zip(starts, federation.rows, strict=False)]
    )
    if not 0 < size <= len(rows):
        raise RecipeError(
            f"size = {size} of a root set, and the sites have {len(rows)} training examples.",
            next_step=f"Choose a size from 1 to {len(rows)}.",
        )
    picked = np.sort(stream(federation.recipe.seed, "root").choice(rows, size, replace=False))
    x, y = federation.x[picked].numpy(), federation.y[picked].numpy()
    write_atomic(file, lambda target: np.savez(target, x=x, y=y))
    return file
