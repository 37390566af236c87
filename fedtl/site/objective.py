"""A client-side step at a site: whether it is allowed, what it was sent and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedtl.errors import FedtlError, PrivacyError, RecipeError
from fedtl.privacy.release import Release
from fedtl.site.site import Site
from fedtl.train.heads import trained_part
from fedtl.train.objectives import (
    Bound,
    LocalObjective,
    Shapes,
    check_sent,
    make_objective,
)
from fedtl.train.task import TrainTask
from fedtl.types import Arrays
from fedtl.wire.messages import Request


def objective_of(site: Site, request: Request, release: Release | None) -> LocalObjective | None:
    """Return what a request asks for beside cross-entropy, made of the site's own code.

    Raises
    ------
    FedtlError
        With a code ``objective.*`` or ``policy.objective``. ``objective.unprotected``: a site whose
        noise comes with the others' knows its head without noise, and would show it later by what
        it remembers of it.
    """
    if request.objective is None:
        return None
    allowed = None if site.simulated else site.rules.objectives
    rule = make_objective(request.objective, allowed=allowed)
    check_sent(rule, trained_part(request.arrays), request.beside)
    shapes = {name: v.shape for name, v in trained_part(request.arrays).items()}
    if kept := [*rule.keeps(shapes)]:
        _check_shared(rule, kept, shapes)
    if (rule.remembers or kept) and release is not None and release.honest_sites:
        raise PrivacyError(
            f"For '{request.objective.name}' sites would remember heads without noise, as noise is "
            "shared out over them.",
            next_step="Set privacy.model = 'site', or choose a strategy whose sites remember "
            "nothing.",
            code="objective.unprotected",
        )
    return rule


def bound(
    rule: LocalObjective | None,
    request: Request,
    sites: Sequence[Site],
    runs: Sequence[str],
    *,
    task: TrainTask,
) -> Bound | None:
    """Return an objective with what the sites remember of the rounds before."""
    if rule is None or request.objective is None:
        return None
    name = request.objective.to_json()
    memories: list[Arrays] = [
        site.memory.before(run, name, request.round) if rule.remembers else {}
        for site, run in zip(sites, runs, strict=True)
    ]
    head = trained_part(request.arrays)
    return Bound.of(rule, head, request.beside, memories, task=task, round_=request.round)


def remember(
    objective: Bound | None,
    request: Request,
    sites: Sequence[Site],
    runs: Sequence[str],
    trained: Mapping[str, Tensor],
) -> None:
    """Have the sites remember what an objective makes of their ``[S, *shape]`` trained heads."""
    if objective is None or request.objective is None or not objective.rule.remembers:
        return
    kept = objective.remember(request.arrays, trained)
    name = request.objective.to_json()
    for at, (site, run) in enumerate(zip(sites, runs, strict=True)):
        own = {what: values[at].numpy() for what, values in kept.items()}
        site.memory.keep(run, name, request.round, own)


def own_arrays(rule: LocalObjective | None, request: Request, site: Site, run: str) -> Arrays:
    """Return the arrays of a head that stay at the site, as it has them; at first as received.

    Raises
    ------
    FedtlError
        With code ``objective.memory``: they have another shape.
    """
    if rule is None or request.objective is None:
        return {}
    names = rule.keeps({name: values.shape for name, values in request.arrays.items()})
    received = {name: request.arrays[name] for name in names}
    if not received:
        return {}
    kept = site.memory.before(run, own_key(request), request.round)
    for name in kept:
        if kept[name].shape != received[name].shape:
            raise FedtlError(
                f"{site.name} keeps '{name}' in the shape {kept[name].shape}, the head has "
                f"{received[name].shape}.",
                next_step="Start a new run: another head needs another memory.",
                code="objective.memory",
            )
    return {**received, **kept}


def keep_arrays(request: Request, site: Site, run: str, arrays: Arrays) -> None:
    """Keep a site's own arrays after a round."""
    if arrays and request.objective is not None:
        site.memory.keep(run, own_key(request), request.round, arrays)


def own_key(request: Request) -> str:
    """Return the name of a site's own arrays in its memory: those of another plan are others.

    What is told of them with noise rests on their having been trained under the plan at hand.
    """
    objective = request.objective.to_json() if request.objective else ""
    return f"own {objective} {request.plan.to_json() if request.plan else ''}"


def _check_shared(rule: LocalObjective, kept: Sequence[str], shapes: Shapes) -> None:
    if set(kept) < set(shapes):
        return
    raise RecipeError(
        f"{type(rule).__name__} keeps {', '.join(kept)} at the site, of a head that has "
        f"{', '.join(shapes)}: nothing would be shared.",
        next_step="Set head.kind = 'mlp': its hidden layer is what the sites share.",
        code="objective.invalid",
    )
