"""Features: each picture goes through the backbone once and is found again by its content.

Importing this package imports neither torch, timm nor onnxruntime; nor does a warm extraction.
"""

from fedtl.features.cache import Entry, FeatureCache, prune, usage
from fedtl.features.extract import Features, extract
from fedtl.features.prepare import Prepared, prepare

__all__ = [
    "Entry",
    "FeatureCache",
    "Features",
    "Prepared",
    "extract",
    "prepare",
    "prune",
    "usage",
]
