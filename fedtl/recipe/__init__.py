"""The recipe: one TOML file that describes a run, checked before anything starts."""

from fedtl.recipe.load import DEFAULT, load_recipe
from fedtl.recipe.tables import LINEAR_RATE, MLP_RATE, Backbone, Recipe, replaced

__all__ = [
    "DEFAULT",
    "LINEAR_RATE",
    "MLP_RATE",
    "Backbone",
    "Recipe",
    "load_recipe",
    "replaced",
]
