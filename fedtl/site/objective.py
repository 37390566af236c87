"""A client-side step at a site: whether it is allowed, what it was sent and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedtl.errors import PrivacyError
from fedtl.privacy.release import Release
from fedtl.site.site import Site
from fedtl.train.heads import trained_part
from fedtl.train.objectives import Bound, LocalObjective, check_sent, make_objective
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
    if rule.remembers and release is not None and release.honest_sites:
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
