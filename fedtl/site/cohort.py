"""Head training of a whole cohort of sites on one and the same request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedtl.errors import FedtlError, SiteFailure
from fedtl.privacy.plan import Release
from fedtl.site.account import Account, content_of
from fedtl.site.compress import compressed
from fedtl.site.objective import bound, keep_arrays, objective_of, own_arrays, remember
from fedtl.site.seal import Seal
from fedtl.site.site import Site, check_seal, paid
from fedtl.train.fit import check_sampling, fit, gradient_deviation
from fedtl.train.heads import check_head, trained_part
from fedtl.train.task import TrainTask
from fedtl.types import Arrays, Update
from fedtl.wire.messages import TRAIN, Request, release_of

_log = logging.getLogger("fedtl.site")


@dataclass(frozen=True, slots=True)
class _Ready:
    """A site that has checked a request and paid for it."""

    at: int
    site: Site
    account: Account | None
    seal: Seal | None
    releases: int
    run: str
    task: TrainTask


def train_cohort(
    sites: Sequence[Site],
    request: Request,
    spent: Sequence[int],
    runs: Sequence[str] = (),
    seals: Sequence[Seal | None] = (),
) -> list[Update | SiteFailure]:
    """Train a cohort of sites on one and the same request; a single site is a cohort of one.

    A site that fails answers with a code, and the others go on. ``spent`` counts the run's gradient
    releases of sites without a ledger, ``runs`` are Flower's run ids, and ``seals`` hide updates in
    a sum under secure aggregation.
    """
    ready: list[_Ready] = []
    answers: list[Update | SiteFailure] = [SiteFailure("site.failed")] * len(sites)
    charged = request.plan is not None and any(site.ledger is not None for site in sites)
    content, fitting = content_of(request) if charged else "", set[tuple[int, int]]()
    for at, (site, before) in enumerate(zip(sites, spent, strict=True)):
        seal, run = seals[at] if seals else None, runs[at] if runs else ""
        try:
            account = site.account(request, TRAIN, run, content, seal=seal)
            if account is not None and (given := account.answered()) is not None:
                answers[at] = given
                continue
            task = _task(request)
            if (fit_for := (site.width, len(site.classes))) not in fitting:
                check_head(request.arrays, width=fit_for[0], classes=fit_for[1])
                fitting.add(fit_for)
            releases = _admit(site, request, before, account, seal)
            named = site.run_of(request, run)
            if task.epochs:
                task = task.at(len(site.examples[0]))
            ready.append(_Ready(at, site, account, seal, releases, named, task))
        except Exception as error:
            answers[at] = failure_of(error, site.name)
    for one, arrays in zip(ready, _isolated(ready, request), strict=True):
        answers[one.at] = (
            arrays if isinstance(arrays, SiteFailure) else _handed_out(one, request, arrays)
        )
    return answers


def _handed_out(one: _Ready, request: Request, arrays: Arrays) -> Update | SiteFailure:
    """Return what may leave the site: sealed where that was asked, and stored if it can be."""
    weight = 1.0 if request.plan else float(len(one.site.examples[0]))
    steps = one.task.steps if _task(request).epochs else 0
    try:
        if request.compression is not None:
            arrays = compressed(one.site, request, arrays, one.run, sealed=one.seal is not None)
        update = Update(arrays, weight, one.releases, steps)
        if one.seal is not None:
            release = release_of(request, TRAIN)
            streams = one.site.streams(request)
            update = one.seal.close(update, release, _deviations(request, release), streams)
        return update if one.account is None else one.account.keep(update)
    except Exception as error:
        return failure_of(error, one.site.name)


def _deviations(request: Request, release: Release | None) -> dict[str, float]:
    """Return the deviation of the noise that a sum of heads needs: a step's of size lr."""
    if release is None:
        return {}
    rate = _task(request).lr_at(request.round, 0)
    return {name: rate * gradient_deviation(release) for name in trained_part(request.arrays)}


def _admit(
    site: Site, request: Request, spent: int, account: Account | None, seal: Seal | None
) -> int:
    """Check a request against a site and pay for it; return the run's releases with it."""
    task, release = _task(request), release_of(request, TRAIN)
    check_sampling(task, release)
    objective_of(site, request, release)
    check_seal(site, request, release, seal)
    if account is not None or site.rules.least_examples:
        # unreadable or too few data are found before anything is paid
        site.rules.check_size(site.name, len(site.examples[0]))
    releases = paid(account, release, spent, task.steps)
    if release is None and not len(site.examples[0]):
        raise FedtlError(f"{site.name} has no training examples.", code="data.empty")
    return releases


def _task(request: Request) -> TrainTask:
    if request.task is None:
        raise FedtlError("The message carries no task.", code="message.invalid")
    return request.task


def _isolated(ready: Sequence[_Ready], request: Request) -> list[Arrays | SiteFailure]:
    """Train together; if that fails, one by one, so that only the site at fault fails."""
    try:
        return list(_trained(ready, request))
    except (Exception, SystemExit) as error:  # an objective may raise anything
        if len(ready) == 1:
            return [failure_of(error, ready[0].site.name)]
        return [answer for one in ready for answer in _isolated([one], request)]


def _trained(ready: Sequence[_Ready], request: Request) -> list[Arrays]:
    """Train heads; sites that take other numbers of steps are a cohort of their own."""
    if "weight" not in request.arrays:
        return [_trained_mlp(one, request) for one in ready]
    trained: dict[int, Arrays] = {}
    for task in dict.fromkeys(one.task for one in ready):
        alike = [one for one in ready if one.task == task]
        heads = _trained_alike(alike, request, task)
        trained.update(zip((one.at for one in alike), heads, strict=True))
    return [trained[one.at] for one in ready]


def _trained_alike(ready: Sequence[_Ready], request: Request, task: TrainTask) -> list[Arrays]:
    """Train heads, and have the sites remember what an objective wants remembered."""
    release = release_of(request, TRAIN)
    sites, runs = [one.site for one in ready], [one.run for one in ready]
    streams = [site.streams(request) for site in sites]
    rule = objective_of(sites[0], request, release)
    objective = bound(rule, request, sites, runs, task=task)
    # what gets its noise later must not be rounded before: float32 shows who was in
    kind = np.float64 if release is not None and release.honest_sites else np.float32
    head = torch.from_numpy(np.array(request.arrays["weight"], kind))
    heads = fit(
        head.expand(len(sites), -1, -1),
        [site.whitened(request.arrays)[0] for site in sites],
        task=task,
        release=release,
        streams=streams,
        round_=request.round,
        objective=objective,
    )
    remember(objective, request, sites, runs, {"weight": heads})
    return [{"weight": trained.numpy()} for trained in heads]


def _trained_mlp(one: _Ready, request: Request) -> Arrays:
    from fedtl.train.mlp import fit_mlp_head

    release = release_of(request, TRAIN)
    rule = objective_of(one.site, request, release)
    objective = bound(rule, request, [one.site], [one.run], task=one.task)
    own = own_arrays(rule, request, one.site, one.run)
    trained = fit_mlp_head(
        {**request.arrays, **own},
        one.site.examples[0],
        task=one.task,
        release=release,
        streams=one.site.streams(request),
        round_=request.round,
        objective=objective,
    )
    stacked = {name: torch.from_numpy(values)[None] for name, values in trained.items()}
    remember(objective, request, [one.site], [one.run], stacked)
    keep_arrays(request, one.site, one.run, {name: trained[name] for name in own})
    return {**trained, **{name: request.arrays[name] for name in own}}


def failure_of(error: BaseException, site: str) -> SiteFailure:
    """Log an exception where it happened and turn it into a code without text."""
    if isinstance(error, FedtlError):
        _log.warning("%s: %s", site, error)
        return SiteFailure(error.code)
    _log.exception("%s: unexpected failure", site)
    return SiteFailure("site.failed")
