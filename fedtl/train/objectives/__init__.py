"""Client-side steps and sums by name: :class:`LocalObjective` and :class:`LocalStatistic`.

Anyone's own class is named by ``path/to/file.py:Class`` or registered under the entry point group
``fedtl.objectives`` (``fedtl.statistics``). A real site takes built-in ones, and others only where
its policy names them: the code that runs is always the site's own copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from fedtl.errors import ConfigError, FedtlError, PrivacyError, nearest
from fedtl.plugins import class_of
from fedtl.train.objective_name import ObjectiveName, digest_of, file_of
from fedtl.train.objectives.bound import Bound, check_sent
from fedtl.train.objectives.objective import Local, LocalObjective, Shapes, like
from fedtl.train.objectives.statistic import LocalStatistic

__all__ = [
    "OBJECTIVES",
    "STATISTICS",
    "Bound",
    "Local",
    "LocalObjective",
    "LocalStatistic",
    "ObjectiveName",
    "Shapes",
    "check_sent",
    "like",
    "make_objective",
    "make_statistic",
]

_HERE = "fedtl.train.objectives"
OBJECTIVES: dict[str, str] = {
    "fedprox": f"{_HERE}.proximal:Proximal",
    "scaffold": f"{_HERE}.scaffold:ControlVariates",
    "feddyn": f"{_HERE}.dynamic:DynamicRegulariser",
    "logit_adjusted": f"{_HERE}.adjusted:LogitAdjusted",
}
"""Name to ``module:Class``."""
STATISTICS: dict[str, str] = {"class_counts": f"{_HERE}.adjusted:ClassCounts"}
"""Name to ``module:Class``."""


def make_objective(asked: ObjectiveName, *, allowed: Sequence[str] | None = None) -> LocalObjective:
    """Make an objective from this machine's own code.

    Parameters
    ----------
    allowed : sequence of str, optional
        Names and ``file.py:Class`` beside the built-in ones; None allows everything (a simulation).

    Raises
    ------
    PrivacyError
        With code ``policy.objective``: it is not allowed here.
    ConfigError
        It is unknown, its class cannot be loaded, or it does not take the options.
    FedtlError
        With code ``objective.other``: this machine's file is not the one that was named.
    """
    made: LocalObjective = _made(asked, LocalObjective, OBJECTIVES, allowed)
    return made


def make_statistic(asked: ObjectiveName, *, allowed: Sequence[str] | None = None) -> LocalStatistic:
    """Make a statistic from this machine's own code; as :func:`make_objective`."""
    made: LocalStatistic = _made(asked, LocalStatistic, STATISTICS, allowed)
    return made


def _made(
    asked: ObjectiveName, base: type, known: Mapping[str, str], allowed: Sequence[str] | None
) -> Any:
    what = base.__name__.removeprefix("Local")
    target = _target(asked, what, known, allowed)
    cls = class_of(target, base, what=what)
    if (file := file_of(target)) is not None and digest_of(file) != asked.source:
        raise FedtlError(
            f"The {what.lower()} file '{file}' is not the one that the server named.",
            next_step="Use the same file at the server and at every site.",
            code="objective.other",
        )
    try:
        return cls(**asked.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{what} '{asked.name}' cannot be made from {dict(asked.options)}: {error}.",
            next_step="Correct the options of the strategy.",
            code="objective.invalid",
        ) from error


def _target(
    asked: ObjectiveName, what: str, known: Mapping[str, str], allowed: Sequence[str] | None
) -> str:
    if asked.name in known:
        return known[asked.name]
    named = asked.name
    if allowed is not None:
        wanted = named.rpartition(":")[2]
        named = next((a for a in allowed if a.rpartition(":")[2] == wanted), "")
        if not named:
            raise PrivacyError(
                f"The {what.lower()} '{asked.name[:80]}' is not allowed here.",
                next_step="Add it to the objectives of the site's policy, after reading its code.",
                code="policy.objective",
            )
    if ":" in named:
        return named
    group = {"Objective": "fedtl.objectives", "Statistic": "fedtl.statistics"}[what]
    registered = {e.name: e.value for e in entry_points(group=group)}
    if named not in registered:
        raise ConfigError(
            f"{what} '{named}' is unknown.",
            next_step=nearest(named, [*known, *registered]) + " Your own: path/to/file.py:Class.",
            code="objective.unknown",
        )
    return registered[named]
