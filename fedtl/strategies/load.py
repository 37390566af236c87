"""From ``module:Class`` or ``path/to/file.py:Class`` to a strategy; every mistake gets a cure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest
from fedtl.plugins import module_of

_MINIMUMS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def load_class(target: str, *, name: str) -> type[Strategy]:
    """Import a strategy class.

    Parameters
    ----------
    target : str
        ``module:Class`` or ``path/to/file.py:Class``.
    name : str
        What the user called it.

    Raises
    ------
    StrategyError
        A module or file that is not there or fails (with the line), no such class, a class that is
        no Flower ``Strategy``, or one with methods missing.
    """
    place, _, attribute = target.rpartition(":")
    module = module_of(place, name, what="Strategy", error=StrategyError)
    found = getattr(module, attribute, None)
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise _no_strategy(module, place, attribute, found)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise StrategyError(
            f"Strategy '{name}' has no {_listed(missing)}, which a Flower Strategy needs.",
            next_step=f"Write {_listed(missing)}, or derive {attribute} from "
            "flwr.serverapp.strategy.FedAvg, which has them.",
            code="strategy.abstract",
        )
    return found


def _no_strategy(module: Any, place: str, attribute: str, found: object) -> StrategyError:
    classes = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Strategy) and not inspect.isabstract(value)
    ]
    if found is not None:
        kind = "a class that is none" if inspect.isclass(found) else f"a {type(found).__name__}"
        return StrategyError(
            f"'{place}' has no Flower Strategy class '{attribute}': that is {kind}.",
            next_step=f"Derive it from flwr.serverapp.strategy.Strategy. {nearest('', classes)}",
        )
    return StrategyError(
        f"'{place}' has no Flower Strategy class '{attribute}'.",
        next_step=nearest(attribute, classes) if classes else "Derive it from Strategy.",
    )


def instance(
    cls: type[Strategy], options: Mapping[str, Any] | None = None, *, name: str = ""
) -> Strategy:
    """Make a strategy from its class.

    Parameters
    ----------
    options : mapping, optional
        Keyword arguments. Flower's minimum numbers of nodes are set to 1 where the class has them
        and they are not given: how many sites take part is the recipe's business.
    name : str
        What the user called it; default: the class's name.

    Raises
    ------
    StrategyError
        Options that it does not take or lacks, all of them named, or a constructor that fails.
    """
    name, takes = name or cls.__name__, inspect.signature(cls).parameters
    given = {key: 1 for key in _MINIMUMS if key in takes} | dict(options or {})
    _check_options(given, takes, name)
    try:
        return cls(**given)
    except Exception as error:  # a constructor may raise anything
        raise StrategyError(
            f"Strategy '{name}' cannot be made from {dict(options or {})}: {error}",
            next_step="Correct [strategy.options] in the recipe.",
        ) from error


def _check_options(
    given: Mapping[str, Any], takes: Mapping[str, inspect.Parameter], name: str
) -> None:
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    unknown = [key for key in given if key not in takes]
    if unknown and not anything:
        raise StrategyError(
            f"Strategy '{name}' has no option '{unknown[0]}'.",
            next_step=nearest(unknown[0], takes),
        )
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    lacking = [
        key
        for key, p in takes.items()
        if p.default is p.empty and p.kind not in variable and key not in given
    ]
    if lacking:
        example = ", ".join(f"{key} = ..." for key in lacking)
        raise StrategyError(
            f"Strategy '{name}' needs {_listed(lacking)}, and nothing says what.",
            next_step=f"Give [strategy.options] {example} in the recipe, or give its constructor "
            "defaults.",
            code="strategy.needs-options",
        )


def _listed(names: Iterable[str]) -> str:
    """Join quoted names: ``'a', 'b' and 'c'``."""
    *first, last = [f"'{name}'" for name in names]
    return f"{', '.join(first)} and {last}" if first else last
