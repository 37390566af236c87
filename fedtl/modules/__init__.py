"""Modules: a finished head with the card of its backbone, its classes and its provenance."""

from fedtl.modules.module import Module, Prediction, load_module, save_module

__all__ = ["Module", "Prediction", "load_module", "save_module"]
