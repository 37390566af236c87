"""From a recipe to what its sites are asked to do, and under which privacy plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fedtl.data import Manifest, SiteRows
from fedtl.errors import PrivacyError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.privacy.release import Mechanism
from fedtl.privacy.secagg import least_sites
from fedtl.recipe import Recipe
from fedtl.rounds import Settings
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.train.counts import LABELS_NORM, METRICS_NORM
from fedtl.wire.messages import ADDITIVE

FEATURE_NORM = 1.01**0.5
"""Every prepared row has unit length and a bias feature of 0.1."""
LABELS_SHARE = 0.02
"""Share of the budget that counts of labels get; they are asked for once."""


def plan_of(recipe: Recipe, *, mean_size: float, sites: int) -> PrivacyPlan | None:
    """Return a recipe's privacy plan; None without privacy.

    Parameters
    ----------
    mean_size : float
        Stands in for an unnamed public size.
    sites : int
        Number of sites in the federation.

    Raises
    ------
    PrivacyError
        The recipe contradicts itself, or its budget cannot be met.
    """
    privacy = recipe.privacy
    if not privacy.enabled:
        return None
    says = Declared.of(strategy_of(recipe))
    size = float(privacy.public_size or max(round(mean_size), 1))
    rounds = says.rounds or recipe.train.rounds
    return plan_for(
        *_updates(
            recipe,
            says.asked(rounds),
            size=size,
            honest=_honest(recipe, sites),
            sums_norm=says.sums_norm,
        ),
        *_told(recipe, rounds),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        shares=_shares(recipe, says),
        accountant=privacy.accountant,
        noise_multiplier=privacy.noise_multiplier,
    )


def _updates(
    recipe: Recipe,
    asked: Mapping[Mechanism, int],
    *,
    size: float,
    honest: int,
    sums_norm: float,
) -> list[Release]:
    """Return the releases that a strategy makes heads of: sums first, then gradients."""
    privacy, train = recipe.privacy, recipe.train
    clips = {"statistics": FEATURE_NORM, "mean": 1.0, "covariance": 1.0, "sums": sums_norm}
    releases = [
        Release(
            mechanism=name,
            clip_norm=clips[name],
            count=count,
            unit=privacy.unit,
            honest_sites=honest,
        )
        for name, count in asked.items()
        if name != "gradients"
    ]
    if "gradients" not in asked:
        return releases
    if asked["gradients"] < 1:
        sums = sum(release.count for release in releases)
        raise PrivacyError(
            f"train.rounds = {train.rounds}, and '{recipe.strategy.name}' needs {sums} of them "
            "for sums, which leaves none for gradients.",
            next_step=f"Set train.rounds to at least {sums + 1}; 40 do well.",
        )
    poisson = min(1.0, train.batch_size / size) if train.sampling == "poisson" else 1.0
    gradients = Release(
        mechanism="gradients",
        clip_norm=privacy.clip_norm,
        count=asked["gradients"] * train.local_steps,
        sampling_rate=poisson,
        unit=privacy.unit,
        unit_cap=privacy.unit_cap if privacy.unit == "group" else 0,
        public_size=size,
        honest_sites=honest,
    )
    return [*releases, gradients]


def _told(recipe: Recipe, rounds: int) -> list[Release]:
    """Return the releases that are no updates: counts of labels, and of right and wrong answers."""
    privacy, told = recipe.privacy, []
    if privacy.labels == "noised":
        told.append(Release(mechanism="labels", clip_norm=LABELS_NORM, unit=privacy.unit))
    if privacy.metrics == "noised":
        due = sum(settings_of(recipe, rounds).due(r) for r in range(1, rounds + 1))
        told.append(
            Release(
                mechanism="metrics", clip_norm=METRICS_NORM, count=max(due, 1), unit=privacy.unit
            )
        )
    return told


def _shares(recipe: Recipe, says: Declared) -> dict[str, float]:
    """Return how the budget of training records is split: as a strategy wants, beside labels."""
    given = dict(says.shares or dict.fromkeys(says.mechanisms, 1 / len(says.mechanisms)))
    if recipe.privacy.labels != "noised":
        return given
    left = 1.0 - LABELS_SHARE
    return {"labels": LABELS_SHARE, **{name: left * share for name, share in given.items()}}


def settings_of(recipe: Recipe, rounds: int) -> Settings:
    """Return the loop's settings of a recipe."""
    return Settings(
        rounds=rounds,
        sites_per_round=recipe.train.sites_per_round,
        seed=recipe.seed,
        evaluate_every=recipe.evaluate_every,
        timeout=recipe.transport.timeout,
        metrics=recipe.privacy.metrics,
    )


def releases_per_round(recipe: Recipe) -> dict[str, int]:
    """Return how many releases of each kind a site makes in one round that asks for them."""
    once = dict.fromkeys((*ADDITIVE.values(), "metrics"), 1)
    return {"gradients": recipe.train.local_steps, **once}


def cohort_size(recipe: Recipe, sites: int) -> int:
    """Return how many sites take part in a round."""
    return min(recipe.train.sites_per_round or sites, sites)


def _honest(recipe: Recipe, sites: int) -> int:
    """Return the number of sites whose shares of noise are counted on; 0 if none are shared."""
    privacy = recipe.privacy
    if privacy.model == "site":
        return 0
    least = least_sites(recipe.transport.secure_threshold, cohort_size(recipe, sites))
    if privacy.honest_sites > least:
        raise PrivacyError(
            f"privacy.honest_sites = {privacy.honest_sites}, but a round goes on with {least} of "
            f"{cohort_size(recipe, sites)} sites.",
            next_step="Lower honest_sites, or raise transport.secure_threshold.",
            code="secagg.honest",
        )
    return privacy.honest_sites or least


def cautions(recipe: Recipe, manifest: Manifest, rows: Sequence[SiteRows]) -> list[str]:
    """Return what is allowed in a recipe and seldom meant, in sentences."""
    privacy, said = recipe.privacy, []
    asked = cohort_size(recipe, len(rows))
    if asked < len(rows) and Declared.of(strategy_of(recipe)).rounds == 1:
        said.append(
            f"Strategy '{recipe.strategy.name}' asks the sites once, and train.sites_per_round = "
            f"{asked} leaves {len(rows) - asked} of {len(rows)} sites out of its head for good."
        )
    if not privacy.enabled:
        return said
    largest = max(_units(recipe, manifest, part) for part in rows)
    if privacy.delta >= 1 / max(largest, 1):
        said.append(
            f"privacy.delta = {privacy.delta:g} is not below 1 / {largest}, one over the largest "
            f"site's {privacy.unit}s: such a delta allows one of them to be published outright. "
            f"Choose at most {0.1 / largest:.0e}."
        )
    if privacy.unit == "group" and privacy.unit_cap and manifest.groups is not None:
        sizes = Counter(manifest.groups[row] for part in rows for row in part.train)
        over = [size - privacy.unit_cap for size in sizes.values() if size > privacy.unit_cap]
        if over:
            said.append(
                f"{len(over)} of {len(sizes)} groups have more than privacy.unit_cap = "
                f"{privacy.unit_cap} training examples; {sum(over)} examples are not used."
            )
    if privacy.metrics == "noised":
        trained, held_out = (
            set(map(bytes, manifest.digests[rows])) for rows in (~manifest.test, manifest.test)
        )
        if both := len(trained & held_out):
            said.append(
                f"{both} records are trained on and held out as well, under two names: they pay "
                "for updates and for metrics, together perhaps more than privacy.epsilon."
            )
    return said


def _units(recipe: Recipe, manifest: Manifest, part: SiteRows) -> int:
    if recipe.privacy.enabled and recipe.privacy.unit == "group" and manifest.groups is not None:
        return len({manifest.groups[row] for row in part.train})
    return len(part.train)


def mean_units(recipe: Recipe, manifest: Manifest, rows: Sequence[SiteRows]) -> float:
    """Return the mean number of the sites' training units: examples, or groups.

    Raises
    ------
    PrivacyError
        The recipe protects groups and the data have none.
    """
    if recipe.privacy.enabled and recipe.privacy.unit == "group" and manifest.groups is None:
        raise PrivacyError(
            f"privacy.unit = 'group', and '{manifest.name}' has no groups.",
            next_step="Give the manifest a 'group' column, or set privacy.unit = 'example'.",
            code="plan.no-groups",
        )
    return float(np.mean([_units(recipe, manifest, part) for part in rows]))
