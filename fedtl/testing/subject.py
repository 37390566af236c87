"""The strategy that is judged, made anew for every law: none may profit from another's state."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError
from fedtl.strategies import instance, make_strategy, strategy_class
from fedtl.strategies.declared import check_declared

Given = str | type[Strategy] | Strategy | Callable[[], Strategy]
"""A known name or ``path/to/file.py:Class``, a class, an instance, or a function without
arguments that makes one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A strategy that can be made any number of times.

    Attributes
    ----------
    name : str
        What reports call it.
    make : callable
        Returns a new one.
    not_promised : mapping of str to str
        Law to the reason why the strategy does not keep it.
    """

    name: str
    make: Callable[[], Strategy]
    not_promised: Mapping[str, str]


def subject_of(
    strategy: Given,
    *,
    options: Mapping[str, Any] | None = None,
    around: Mapping[str, Mapping[str, Any]] | None = None,
    not_promised: Mapping[str, str] | None = None,
) -> Subject:
    """Return the subject behind whatever was given.

    Parameters
    ----------
    options : mapping, optional
        Keyword arguments of a class or a name.
    around : mapping of str to mapping, optional
        Wrappers of a name and their options, the outermost first.
    not_promised : mapping of str to str, optional
        Besides the class's own attribute ``not_promised``.

    Raises
    ------
    StrategyError
        It cannot be found, made or made again, or says something of itself that cannot be.
    """
    if around:
        name, make = _wrapped(strategy, options or {}, around)
    else:
        name, make = _maker(strategy, options or {})
    made = make()
    if not isinstance(made, Strategy):
        raise StrategyError(
            f"{name} makes a {type(made).__name__}, which is no Flower Strategy.",
            next_step="Derive the class from flwr.serverapp.strategy.Strategy.",
        )
    check_declared(made, name)
    own = getattr(made, "not_promised", {})
    if not (isinstance(own, Mapping) and all(isinstance(v, str) for v in own.values())):
        raise StrategyError(
            f"{name}.not_promised is {own!r}.",
            next_step="Give a dict of the names of laws and the reasons, as text.",
        )
    return Subject(name, make, {**own, **(not_promised or {})})


def _wrapped(
    strategy: Given, options: Mapping[str, Any], around: Mapping[str, Mapping[str, Any]]
) -> tuple[str, Callable[[], Strategy]]:
    if not isinstance(strategy, str):
        raise StrategyError(
            f"Wrappers {list(around)} go around a name, and {strategy!r} is none.",
            next_step="Give a function without arguments that makes the wrapped strategy.",
        )
    text = " around ".join([*around, strategy.rpartition(":")[2]])
    return text, partial(make_strategy, strategy, options, around=around)


def _maker(strategy: Given, options: Mapping[str, Any]) -> tuple[str, Callable[[], Strategy]]:
    if isinstance(strategy, str):
        # the class is loaded once: a file that is run again would forget what it kept by mistake
        made = partial(instance, strategy_class(strategy), options, name=strategy)
        return strategy.rpartition(":")[2], made
    if inspect.isclass(strategy):
        return strategy.__name__, partial(instance, strategy, options)
    if options:
        raise StrategyError(
            f"Options {dict(options)} go with a class or a name, and {strategy!r} is made already.",
            next_step="Give the class, or put them into what makes it.",
        )
    if isinstance(strategy, Strategy):
        return type(strategy).__name__, partial(_copied, copy.deepcopy(strategy))
    if callable(strategy):
        return getattr(strategy, "__name__", type(strategy).__name__), strategy
    raise StrategyError(
        f"{strategy!r} is no strategy.",
        next_step="Give a name, a class, an instance or a function that makes one.",
    )


def _copied(strategy: Strategy) -> Strategy:
    try:
        return copy.deepcopy(strategy)
    except Exception as error:
        raise StrategyError(
            f"This {type(strategy).__name__} cannot be copied: {error}.",
            next_step="Give the class, or a function without arguments that makes one.",
        ) from error
