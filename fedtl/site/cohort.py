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
    content = content_of(request) if charged else ""
    for at, (site, before) in enumerate(zip(sites, spent, strict=True)):
        seal, run = seals[at] if seals else None, runs[at] if runs else ""
        try:
            account = site.account(request, TRAIN, run, content, seal=seal)
            if account is not None and (given := account.answered()) is not None:
                answers[at] = given
                continue
            releases = _admit(site, request, before, account, seal)
            ready.append(_Ready(at, site, account, seal, releases))
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
    update = Update(arrays, weight, one.releases)
    try:
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
    check_head(request.arrays, width=site.width, classes=len(site.classes))
    check_sampling(task, release)
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
        return list(_trained([one.site for one in ready], request))
    except Exception as error:
        if len(ready) == 1:
            return [failure_of(error, ready[0].site.name)]
        return [answer for one in ready for answer in _isolated([one], request)]


def _trained(sites: Sequence[Site], request: Request) -> list[Arrays]:
    if not sites:
        return []
    task, release = _task(request), release_of(request, TRAIN)
    streams = [site.streams(request) for site in sites]
    if "weight" not in request.arrays:
        from fedtl.train.mlp import fit_mlp_head

        return [
            fit_mlp_head(
                request.arrays,
                s.examples[0],
                task=task,
                release=release,
                streams=stream,
                round_=request.round,
            )
            for s, stream in zip(sites, streams, strict=True)
        ]
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
    )
    return [{"weight": trained.numpy()} for trained in heads]


def failure_of(error: Exception, site: str) -> SiteFailure:
    """Log an exception where it happened and turn it into a code without text."""
    if isinstance(error, FedtlError):
        _log.warning("%s: %s", site, error)
        return SiteFailure(error.code)
    _log.exception("%s: unexpected failure", site)
    return SiteFailure("site.failed")
