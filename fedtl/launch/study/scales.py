"""What the choices of a plan turn up and down, so that it can be an axis of a figure."""

from __future__ import annotations

from collections.abc import Iterator

from fedtl.recipe import Recipe
from fedtl.recipe.study import StudyPlan
from fedtl.report.study_result import Scale

_Points = dict[str, tuple[tuple[str, float], ...]]


def scales_of(plan: StudyPlan) -> Iterator[Scale]:
    """Yield a scale for each axis that varies alpha, the share of bad sites, or epsilon."""
    recipes: dict[str, dict[str, Recipe]] = {}
    for cell in plan.cells:
        for axis, label in cell.labels:
            recipes.setdefault(axis, {}).setdefault(label, cell.recipe)
    found = {
        ("partition", "alpha"): _alphas(recipes.get("partition", {})),
        ("attack", "share"): _shares(recipes.get("attack", {})),
        ("privacy", "epsilon"): _epsilons(recipes.get("privacy", {})),
    }
    for (axis, quantity), points in found.items():
        if len({x for places in points.values() for _, x in places}) > 1:
            yield Scale(axis, quantity, points)


def _alphas(recipes: dict[str, Recipe]) -> _Points:
    skewed = {k: r.partition.alpha for k, r in recipes.items() if r.partition.kind == "dirichlet"}
    return {label: (("", alpha),) for label, alpha in skewed.items()}


def _epsilons(recipes: dict[str, Recipe]) -> _Points:
    private = {k: r.privacy.epsilon for k, r in recipes.items() if r.privacy.enabled}
    return {label: (("", epsilon),) for label, epsilon in private.items()}


def _shares(recipes: dict[str, Recipe]) -> _Points:
    kinds = dict.fromkeys(r.attack.kind for r in recipes.values() if r.attack.kind != "none")
    return {
        label: ((r.attack.kind, r.attack.share),)
        if r.attack.kind != "none"
        else tuple((kind, 0.0) for kind in kinds)
        for label, r in recipes.items()
    }
