"""From ``module:Class`` or ``path/to/file.py:Class`` to a strategy; every mistake gets a cure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest
from fedtl.plugins import classes_in, module_of
from fedtl.strategies.declared import check_declared

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
    classes = classes_in(module, Strategy)
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
        Options that it does not take or lacks, all of them named, a constructor that fails, or what
        :func:`fedtl.strategies.declared.check_declared` refuses.
    """
    name, takes = name or cls.__name__, inspect.signature(cls).parameters
    given = {key: 1 for key in _MINIMUMS if key in takes} | dict(options or {})
    _check_options(given, takes, name)
    try:
        made = cls(**given)
    except (Exception, SystemExit) as error:  # a constructor may raise anything
        text = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise StrategyError(
            f"Strategy '{name}' cannot be made from {dict(options or {})}: {text.rstrip('.')}.",
            next_step="Correct its options ([strategy.options] in a recipe)."
            if options
            else "Mend its constructor.",
        ) from error
    if not isinstance(made, Strategy):
        raise StrategyError(
            f"Strategy '{name}' makes {made!r:.40}, which is no Flower Strategy.",
            next_step="Mend its __new__.",
        )
    check_declared(made, name)
    return made


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
            next_step=f"Give [strategy.options] {example} in the recipe (--option KEY=VALUE to "
            "check-strategy), or give its constructor defaults.",
            code="strategy.needs-options",
        )


def _listed(names: Iterable[str]) -> str:
    """Join quoted names: ``'a', 'b' and 'c'``."""
    *first, last = [f"'{name}'" for name in names]
    return f"{', '.join(first)} and {last}" if first else last
