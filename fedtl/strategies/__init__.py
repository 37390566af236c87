"""Strategies by name: plain Flower ``Strategy`` classes.

Flower's own classes are used wherever they behave. Anyone's own class is named by
``path/to/file.py:Class`` or registered under the entry point group ``fedtl.strategies``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest

_FLOWER = "flwr.serverapp.strategy"
STRATEGIES: dict[str, str] = {
    "fedavg": f"{_FLOWER}:FedAvg",
    "fedprox": f"{_FLOWER}:FedProx",
    "fedadam": f"{_FLOWER}:FedAdam",
    "fedyogi": f"{_FLOWER}:FedYogi",
    "fedmedian": f"{_FLOWER}:FedMedian",
    "fedtrimmedavg": f"{_FLOWER}:FedTrimmedAvg",
    "krum": f"{_FLOWER}:Krum",
    "fed3r": "fedtl.strategies.fed3r:Fed3R",
    "fedwhiten": "fedtl.strategies.fedwhiten:FedWhiten",
}
"""Name to ``module:Class``."""

_MINIMUMS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def known_strategies() -> dict[str, str]:
    """Return the built-in and registered strategies, name to ``module:Class``."""
    found = {e.name: e.value for e in entry_points(group="fedtl.strategies")}
    return {**found, **STRATEGIES}


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Make a strategy by name, or from ``path/to/file.py:Class``.

    Parameters
    ----------
    options : mapping, optional
        Keyword arguments of the class. Flower's minimum numbers of nodes are set to 1 where the
        class has them and they are not given: how many sites take part is the recipe's business.

    Raises
    ------
    StrategyError
        Unknown name, unreadable file, not a ``Strategy``, or options it does not take.
    """
    cls = _load(name)
    takes = inspect.signature(cls).parameters
    given = {key: 1 for key in _MINIMUMS if key in takes} | dict(options or {})
    unknown = [key for key in given if key not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        raise StrategyError(
            f"Strategy '{name}' has no option '{unknown[0]}'.",
            next_step=nearest(unknown[0], takes),
        )
    try:
        return cls(**given)
    except Exception as error:
        raise StrategyError(
            f"Strategy '{name}' cannot be made from {dict(options or {})}: {error}",
            next_step="Correct [strategy.options] in the recipe.",
        ) from error


def _load(name: str) -> type[Strategy]:
    target = name if ":" in name else known_strategies().get(name, "")
    if not target:
        raise StrategyError(
            f"Strategy '{name}' is unknown.",
            next_step=nearest(name, known_strategies()) + " Your own: path/to/file.py:Class.",
        )
    place, _, attribute = target.rpartition(":")
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place, name)
    cls = getattr(module, attribute, None)
    if not (inspect.isclass(cls) and issubclass(cls, Strategy)):
        classes = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, Strategy)
            and not inspect.isabstract(value)
        ]
        raise StrategyError(
            f"'{place}' has no Flower Strategy class '{attribute}'.",
            next_step=nearest(attribute, classes) if classes else "Derive it from Strategy.",
        )
    return cls


def _module(place: str, name: str) -> Any:
    try:
        return importlib.import_module(place)
    except Exception as error:  # a module may raise anything while it is imported
        raise StrategyError(
            f"Strategy '{name}' cannot be imported: {error}.",
            next_step="Install the package that carries it, or name a file as "
            "path/to/file.py:Class.",
        ) from error


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise StrategyError(
            f"There is no strategy file '{path}'.", next_step="Check the path before the colon."
        )
    spec = importlib.util.spec_from_file_location(f"fedtl_strategy_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"'{path}' is not a Python file.", next_step="Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        line = getattr(error, "lineno", None) or _line_in(error, path)
        raise StrategyError(
            f"Strategy file '{path}' fails at line {line}: {type(error).__name__}: {error}.",
            next_step="Mend the file.",
        ) from error
    return module


def _line_in(error: BaseException, path: Path) -> int | str:
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
