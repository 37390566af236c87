"""Client-side steps and sums by name: :class:`LocalObjective` and :class:`LocalStatistic`.

Anyone's own class is named by ``path/to/file.py:Class`` or registered under the entry point group
``fedtl.objectives`` (``fedtl.statistics``). A real site takes built-in ones, and others only where
its policy names them: the code that runs is always the site's own copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtl.errors import ConfigError, FedtlError, PrivacyError
from fedtl.plugins import class_of, target_of
from fedtl.train.objective_name import ObjectiveName, digest_of, file_of
from fedtl.train.objectives.bound import Bound, check_beside, check_sent
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
    "check_beside",
    "check_sent",
    "like",
    "make_named",
    "make_objective",
    "make_statistic",
]

_HERE = "fedtl.train.objectives"
OBJECTIVES: dict[str, str] = {
    "fedprox": f"{_HERE}.proximal:Proximal",
    "scaffold": f"{_HERE}.scaffold:ControlVariates",
    "feddyn": f"{_HERE}.dynamic:DynamicRegulariser",
    "own_layer": f"{_HERE}.own_layer:OwnLayer",
    "logit_adjusted": f"{_HERE}.adjusted:LogitAdjusted",
}
"""Name to ``module:Class``."""
STATISTICS: dict[str, str] = {
    "class_counts": f"{_HERE}.adjusted:ClassCounts",
    "cluster_losses": f"{_HERE}.clustered:ClusterLosses",
    "mixture_moments": f"{_HERE}.mixed:MixtureMoments",
}
"""Name to ``module:Class``."""

_WHAT = {
    "LocalObjective": "Objective",
    "LocalStatistic": "Statistic",
    "PersonalHead": "Personal head",
}
_GROUPS = {
    "Objective": "fedtl.objectives",
    "Statistic": "fedtl.statistics",
    "Personal head": "fedtl.personal",
}


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
    made: LocalObjective = make_named(asked, LocalObjective, OBJECTIVES, allowed)
    return made


def make_statistic(asked: ObjectiveName, *, allowed: Sequence[str] | None = None) -> LocalStatistic:
    """Make a statistic from this machine's own code; as :func:`make_objective`."""
    made: LocalStatistic = make_named(asked, LocalStatistic, STATISTICS, allowed)
    return made


def make_named(
    asked: ObjectiveName, base: type, known: Mapping[str, str], allowed: Sequence[str] | None
) -> Any:
    """Make what a message names, from this machine's own code; as :func:`make_objective`.

    Parameters
    ----------
    base : type
        What its class must derive from.
    known : mapping of str to str
        The built-in ones, name to ``module:Class``.
    """
    what = _WHAT[base.__name__]
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
    named = asked.name
    if allowed is not None and named not in known:
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
    return target_of(
        named, known, _GROUPS[what], what=what, error=ConfigError, code="objective.unknown"
    )
