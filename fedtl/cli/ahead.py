"""What can be refused at once, so that nobody waits for features before he hears of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedtl.errors import BackboneError

if TYPE_CHECKING:
    from fedtl.recipe import Recipe


def check_start(recipe: Recipe) -> None:
    """Refuse a strategy, budget or transport that the run would fail with after the features.

    Raises
    ------
    FedtlError
        The first problem.
    """
    from fedtl.privacy.calibrate import check_budget
    from fedtl.strategies import strategy_of
    from fedtl.transport.ray import require_ray

    strategy_of(recipe)
    if recipe.privacy.enabled:
        check_budget(recipe.privacy.epsilon, recipe.privacy.delta)
    if recipe.transport.via == "ray":
        require_ray()


def check_names(recipe: Recipe) -> None:
    """Refuse also data or a backbone that is not there.

    Raises
    ------
    FedtlError
        The first problem; where a name is unknown it lists the known ones.
    """
    from fedtl.data import open_data
    from fedtl.data.named import SOURCES

    check_start(recipe)
    source = recipe.data.source
    # an existing folder is not decoded here, which can take minutes
    if source in SOURCES or not Path(source).expanduser().exists():
        open_data(source, limit=recipe.data.limit)
    _check_backbone(recipe.backbone.name, recipe.backbone.weights)


def _check_backbone(name: str, weights: str) -> None:
    from fedtl.backbone import store
    from fedtl.backbone.architectures import check_known
    from fedtl.backbone.weights import weight_packages

    if weights and not Path(weights).expanduser().exists():
        raise BackboneError(
            f"backbone.weights names '{weights}', which does not exist.",
            next_step="Correct the path, or leave it out to use a package or the hub.",
        )
    # the import of timm takes seconds, so what is at hand is not asked about
    if not (Path(name).is_dir() or name in weight_packages() or store.find(name)):
        check_known(name)
