"""What a strategy says of itself in attributes, looked at before anything relies on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest
from fedtl.privacy.release import MECHANISMS
from fedtl.train.objective_name import ObjectiveName

_NOT_UPDATES = ("labels", "metrics")
"""Releases that fedtl asks for by itself."""


def check_declared(strategy: Strategy, name: str) -> None:
    """Refuse a ``mechanisms``, ``shares``, ``rounds``, ``statistic`` or ``sums_norm`` of no use.

    Parameters
    ----------
    name : str
        What the user called it.

    Raises
    ------
    StrategyError
        With code ``strategy.declared``: names the attribute, its value, and what it should be.
    """
    asked = getattr(strategy, "mechanisms", ("gradients",))
    if wrong := _of_mechanisms(asked):
        raise _wrong(name, "mechanisms", asked, wrong)
    shared = partial(_is_shared, frozenset(asked))
    for attribute, wanted, fits in (
        ("shares", "a dict with a share above 0 for each of its mechanisms", shared),
        ("rounds", "a whole number of at least 1", _is_count),
        ("sums_norm", "a number above 0", _is_positive),
        ("statistic", "an ObjectiveName: ObjectiveName.of(...)", _is_name),
    ):
        value = getattr(strategy, attribute, None)
        if value is not None and not fits(value):
            raise _wrong(name, attribute, value, f"Give {wanted}.")


def _wrong(name: str, attribute: str, value: object, cure: str) -> StrategyError:
    return StrategyError(
        f"{attribute} = {value!r} of strategy '{name}' cannot be.",
        next_step=cure,
        code="strategy.declared",
    )


def _of_mechanisms(asked: object) -> str:
    """Say what should be in the place of mechanisms, or nothing."""
    known = [m for m in MECHANISMS if m not in _NOT_UPDATES]
    if not isinstance(asked, tuple | list) or not asked:
        return f"Give a tuple of at least one of {', '.join(known)}."
    unknown = [m for m in asked if m not in known]
    return nearest(str(unknown[0]), known) if unknown else ""


def _is_shared(mechanisms: frozenset[str], value: object) -> bool:
    covers = isinstance(value, Mapping) and value.keys() >= mechanisms
    return covers and all(map(_is_positive, value.values()))  # type: ignore[attr-defined]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _is_name(value: object) -> bool:
    return isinstance(value, ObjectiveName)
