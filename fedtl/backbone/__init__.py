"""Frozen pretrained backbones: where weights come from, what identifies them, how they are run.

Importing this package imports neither torch nor timm.
"""

from fedtl.backbone.card import BackboneCard
from fedtl.backbone.engine import ENGINES, Engine, open_engine
from fedtl.backbone.lookup import resolve
from fedtl.backbone.transform import Transform

__all__ = ["ENGINES", "BackboneCard", "Engine", "Transform", "open_engine", "resolve"]
