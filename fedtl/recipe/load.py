"""From a TOML file to a recipe that makes sense as a whole, or to a refusal that says why.

Unknown keys and values are refused with the nearest known one. Relative paths in a recipe resolve
against the recipe's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedtl.errors import RecipeError
from fedtl.recipe.explain import TomlKind, resolve_path
from fedtl.recipe.tables import Recipe

DEFAULT: dict[str, Any] = {
    "name": "digits",
    "backbone": {"image_size": 64},
}
"""The embedded default: scikit-learn's digit scans at five sites."""

RECIPE = TomlKind(
    "recipe",
    Recipe,
    absent="Check the path; `fedtl recipe show > my.toml` writes one to start from.",
    look_up="`fedtl recipe show` lists keys, defaults and meanings.",
)


def load_recipe(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, or the embedded default, with dotted overrides such as ``train.rounds``.

    Raises
    ------
    RecipeError
        A missing or malformed file, an unknown key, or a value out of range.
    """
    values = (
        _read(path)
        if path
        else {k: dict(v) if isinstance(v, dict) else v for k, v in DEFAULT.items()}
    )
    for dotted, value in (overrides or {}).items():
        _set(values, dotted, value)
    return checked_recipe(values, str(path or "the default recipe"))


def checked_recipe(values: Mapping[str, Any], place: str) -> Recipe:
    """Return the recipe of some values, which errors say were met at ``place``.

    Raises
    ------
    RecipeError
        An unknown key, a value out of range, or values that do not go together.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RECIPE.explain(error, place) from error
    _check_together(recipe)
    return recipe


def _read(path: Path) -> dict[str, Any]:
    return anchored(RECIPE.read(path), path.parent)


def anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let the relative paths among a recipe's values start at a folder; in place."""
    for dotted in ("data.source", "backbone.weights", "strategy.name"):
        resolve_path(values, dotted, folder)
    if isinstance(values.get("strategy"), dict):
        resolve_path(values["strategy"], "options.root", folder)
    return values


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, key = dotted.split(".")
    for name in tables:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"'{name}' must be a table.", next_step=f"Write it as [{name}].")
        values = inner
    values[key] = value


def _check_together(recipe: Recipe) -> None:
    privacy, train = recipe.privacy, recipe.train
    if privacy.enabled and train.sampling == "shuffle":
        raise RecipeError(
            "train.sampling = 'shuffle' cannot be private: the accounting covers full batches and "
            "Poisson sampling.",
            next_step="Set train.sampling to 'full' or 'poisson', or privacy.enabled = false.",
        )
    if privacy.enabled and privacy.model == "distributed":
        _check_distributed(recipe)
    _check_told(recipe)
    check_attack(recipe)
    linear_only = train.optimizer == "adam" or train.averaging or train.sampling == "shuffle"
    if recipe.head.kind == "mlp" and linear_only:
        raise RecipeError(
            f"train.optimizer = {train.optimizer!r}, averaging = {train.averaging} and sampling = "
            f"{train.sampling!r} do not go with head.kind = 'mlp'.",
            next_step="An MLP takes 'sgd', averaging 0, and 'full' or 'poisson' batches.",
        )
    if train.sites_per_round > recipe.partition.sites and recipe.partition.kind != "natural":
        raise RecipeError(
            f"train.sites_per_round = {train.sites_per_round} is more than partition.sites = "
            f"{recipe.partition.sites}.",
            next_step="Lower sites_per_round (0 takes all sites) or raise partition.sites.",
        )


def check_attack(recipe: Recipe) -> None:
    """Refuse an attack that cannot be carried out.

    Raises
    ------
    RecipeError
        Names the keys.
    """
    kind, share, sites = recipe.attack.kind, recipe.attack.share, recipe.partition.sites
    if kind != "none" and recipe.partition.kind != "natural" and share * sites < 1 - 1e-9:
        raise RecipeError(
            f"attack.share = {share:g} of {sites} sites is not one site.",
            next_step=f"Set attack.share to at least {1 / sites:.2g}, or attack.kind = 'none'.",
        )
    if kind in ("none", "label_flip") or not recipe.transport.secure:
        return
    why = (
        "what the other sites send is hidden from a bad one"
        if kind in ("alie", "ipm")
        else "a sealed update cannot be exchanged for another one"
    )
    raise RecipeError(
        f"attack.kind = '{kind}' does not go with transport.secure = true: {why}.",
        next_step="Set transport.secure = false, or attack.kind = 'label_flip'.",
    )


def _check_told(recipe: Recipe) -> None:
    """Refuse noised counts that nothing covers."""
    privacy = recipe.privacy
    asked = {"metrics": privacy.metrics, "labels": privacy.labels}
    noised = [name for name, value in asked.items() if value == "noised"]
    if noised and not privacy.enabled:
        other = "'clear' or 'off'" if noised[0] == "metrics" else "'off'"
        raise RecipeError(
            f"privacy.{noised[0]} = 'noised' with privacy.enabled = false: no plan says how much.",
            next_step=f"Set privacy.{noised[0]} to {other}, or privacy.enabled = true.",
        )
    if privacy.labels == "noised" and privacy.model == "distributed":
        raise RecipeError(
            "privacy.labels = 'noised' does not go with privacy.model = 'distributed': a count of "
            "labels is told by each site for itself, with noise of its own.",
            next_step="Set privacy.labels = 'off', or privacy.model = 'site'.",
        )


def _check_distributed(recipe: Recipe) -> None:
    """Noise that is shared out lies on one sum of gradients: no site may go on from its own."""
    train = recipe.train
    for wrong, now, cure in (
        (not recipe.transport.secure, "transport.secure = false", "transport.secure = true"),
        (recipe.head.kind != "linear", f"head.kind = '{recipe.head.kind}'", "head.kind = 'linear'"),
        (train.sampling != "full", f"train.sampling = '{train.sampling}'", "sampling = 'full'"),
        (train.local_steps > 1, f"train.local_steps = {train.local_steps}", "local_steps = 1"),
        (train.optimizer != "sgd", f"train.optimizer = '{train.optimizer}'", "optimizer = 'sgd'"),
    ):
        if wrong:
            raise RecipeError(
                f"privacy.model = 'distributed' does not go with {now}: the sites' noise is shared "
                "out over one securely aggregated sum of full-batch gradients.",
                next_step=f"Set {cure}, or privacy.model = 'site'.",
            )
