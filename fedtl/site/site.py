"""The site's story: what happens to a task where the data is.

A site owns its examples and answers four questions: describe, train, statistics, evaluate. It never
hands out an example, and an exception leaves it as a code only. What is private is paid for in the
site's ledger before it is computed (:mod:`fedtl.site.account`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from fedtl import __version__
from fedtl.errors import DataError, FedtlError, PrivacyError, SiteFailure
from fedtl.privacy.ledger import Budget, DataSet, Ledger, RequestKey
from fedtl.privacy.plan import PrivacyPlan
from fedtl.site.account import Account, content_of
from fedtl.train.fit import Examples, fit
from fedtl.train.heads import check_head, evaluate
from fedtl.train.ridge import statistics
from fedtl.train.streams import SeededStreams, Streams, SystemStreams
from fedtl.train.task import TrainTask
from fedtl.types import Arrays, Description, Evaluation, Update
from fedtl.wire.messages import STATISTICS, TRAIN, Request

_log = logging.getLogger("fedtl.site")


@dataclass
class Site:
    """One institution's data, ready for training.

    Attributes
    ----------
    name : str
        Public name.
    classes : tuple of str
        The federation's class list, in order.
    width : int
        Features per example, bias feature included.
    backbone : str
        Digest of backbone, taps and transform that made the features.
    load : callable
        Returns training and held-out examples; called once, when first needed.
    spent_before : int
        Releases of this run that happened before this process started (a resumed run).
    simulated : bool
        Whether noise may be seeded by the run. A real site never allows it.
    ledger, dataset : Ledger and DataSet, or None
        Where releases are paid for, and the records they are about (the training examples).
        Without a ledger, the releases of a run are counted by ``spent_before`` and by Flower.
    budget : Budget or None
        What the site's policy allows these records to spend.
    run : str
        Identity of the run in the ledger; empty: Flower's run id.
    """

    name: str
    classes: tuple[str, ...]
    width: int
    backbone: str
    load: Callable[[], tuple[Examples, Examples]] = field(repr=False)
    spent_before: int = 0
    simulated: bool = False
    ledger: Ledger | None = field(default=None, repr=False)
    dataset: DataSet | None = field(default=None, repr=False)
    budget: Budget | None = None
    run: str = ""

    @cached_property
    def examples(self) -> tuple[Examples, Examples]:
        """Training and held-out examples, checked once.

        Raises
        ------
        DataError
            With code ``data.invalid``: features that are not finite (a NaN passes through clipping
            and shows through any noise) or do not fit the head, or labels outside the class list.
        """
        train, held_out = self.load()
        for part in (train, held_out):
            _check_examples(part, self.width, len(self.classes))
        return train, held_out

    def describe(self) -> Description:
        """Return the site's public description."""
        return Description(self.name, self.classes, self.backbone, self.width, __version__)

    def evaluate(self, head: Arrays) -> Evaluation:
        """Evaluate a received head on this site's held-out examples."""
        check_head(head, width=self.width, classes=len(self.classes))
        return evaluate(head, self.examples[1], len(self.classes))

    def statistics(self, request: Request, spent: int, run: str = "") -> Update:
        """Release the sufficient statistics of the training examples."""
        train = self.examples[0]
        account = self.account(request, STATISTICS, run)
        if account is not None and (given := account.answered()) is not None:
            return given
        releases = _paid(account, request.plan, spent, 1)
        parts = statistics(
            train, len(self.classes), plan=request.plan, streams=self.streams(request)
        )
        update = Update(parts, 1.0 if request.plan else float(len(train)), releases)
        return update if account is None else account.keep(update)

    def account(
        self, request: Request, kind: str, run: str, content: str | None = None
    ) -> Account | None:
        """Return what a request means to the site's ledger; None if it is not private.

        Parameters
        ----------
        run : str
            Flower's run id.
        content : str, optional
            Digest of the request, if it is known already.
        """
        if self.ledger is None or request.plan is None:
            return None
        if self.dataset is None:
            raise PrivacyError(
                f"{self.name} has a ledger but no data set to charge.",
                next_step="Give the Site the DataSet of its training examples.",
            )
        content = content_of(request) if content is None else content
        key = RequestKey(self.run or run, request.round, kind, self.name, content)
        seeded = self.simulated and request.seed is not None
        return Account(self.ledger, self.dataset, self.budget, key, keeps_replies=not seeded)

    def streams(self, request: Request) -> Streams:
        """Open the random streams of a round: seeded only in a simulation."""
        if self.simulated and request.seed is not None:
            return SeededStreams(request.seed, request.round, self.name)
        return SystemStreams()


def _check_examples(examples: Examples, width: int, classes: int) -> None:
    labels = examples.y
    fits = examples.x.shape == (len(labels), width) and len(examples.norms) == len(labels)
    known = not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < classes)
    if not (fits and known and bool(examples.norms.isfinite().all())):
        raise DataError(
            f"The site's examples are not {width} finite features in {classes} classes.",
            next_step="Extract the features again, and check the list of classes.",
        )


def charge(plan: PrivacyPlan | None, spent: int, releases: int) -> int:
    """Return the releases of a site after ``releases`` more; refuse what the plan does not cover.

    Epsilon never restarts with a round: the plan's budget is for the whole run.

    Raises
    ------
    PrivacyError
        With code ``privacy.spent``.
    """
    if plan is None:
        return 0
    if spent + releases > plan.releases:
        raise PrivacyError(
            f"{spent} of {plan.releases} releases are spent and {releases} more are asked for.",
            next_step="Start a new run with a plan that covers more rounds.",
            code="privacy.spent",
        )
    return spent + releases


def _paid(account: Account | None, plan: PrivacyPlan | None, spent: int, releases: int) -> int:
    if account is None or plan is None:
        return charge(plan, spent, releases)
    return account.pay(plan, releases)


def train_cohort(
    sites: Sequence[Site], request: Request, spent: Sequence[int], runs: Sequence[str] = ()
) -> list[Update | SiteFailure]:
    """Train a cohort of sites on one and the same request; a single site is a cohort of one.

    A site that fails answers with a code, and the others go on. ``spent`` counts the run's releases
    of sites without a ledger, ``runs`` are Flower's run ids.
    """
    ready: list[tuple[int, Site, int]] = []
    accounts: dict[int, Account | None] = {}
    answers: list[Update | SiteFailure] = [SiteFailure("site.failed")] * len(sites)
    charged = request.plan is not None and any(site.ledger is not None for site in sites)
    content = content_of(request) if charged else ""
    for at, (site, before) in enumerate(zip(sites, spent, strict=True)):
        try:
            account = site.account(request, TRAIN, runs[at] if runs else "", content)
            if account is not None and (given := account.answered()) is not None:
                answers[at] = given
                continue
            ready.append((at, site, _admit(site, request, before, account)))
            accounts[at] = account
        except Exception as error:
            answers[at] = failure_of(error, site.name)
    for (at, site, releases), arrays in zip(ready, _isolated(ready, request), strict=True):
        weight = 1.0 if request.plan else float(len(site.examples[0]))
        answers[at] = (
            arrays
            if isinstance(arrays, SiteFailure)
            else _kept(accounts[at], Update(arrays, weight, releases), site.name)
        )
    return answers


def _kept(account: Account | None, update: Update, site: str) -> Update | SiteFailure:
    """Return what may be handed out: nothing that could not be stored."""
    if account is None:
        return update
    try:
        return account.keep(update)
    except Exception as error:
        return failure_of(error, site)


def _admit(site: Site, request: Request, spent: int, account: Account | None) -> int:
    """Check a request against a site and pay for it; return the run's releases with it."""
    task = _task(request)
    check_head(request.arrays, width=site.width, classes=len(site.classes))
    if account is not None:
        _ = site.examples  # unreadable data are found before anything is paid
    releases = _paid(account, request.plan, spent, task.steps)
    if not request.plan and not len(site.examples[0]):
        raise FedtlError(f"{site.name} has no training examples.", code="data.empty")
    return releases


def _task(request: Request) -> TrainTask:
    if request.task is None:
        raise FedtlError("The message carries no task.", code="message.invalid")
    return request.task


def _isolated(
    ready: Sequence[tuple[int, Site, int]], request: Request
) -> list[Arrays | SiteFailure]:
    """Train together; if that fails, one by one, so that only the site at fault fails."""
    try:
        return list(_trained(ready, request))
    except Exception as error:
        if len(ready) == 1:
            return [failure_of(error, ready[0][1].name)]
        return [answer for one in ready for answer in _isolated([one], request)]


def _trained(ready: Sequence[tuple[int, Site, int]], request: Request) -> list[Arrays]:
    if not ready:
        return []
    task = _task(request)
    sites = [site for _, site, _ in ready]
    streams = [site.streams(request) for site in sites]
    if "weight" not in request.arrays:
        from fedtl.train.mlp import fit_mlp_head

        return [
            fit_mlp_head(
                request.arrays,
                s.examples[0],
                task=task,
                plan=request.plan,
                streams=stream,
                round_=request.round,
            )
            for s, stream in zip(sites, streams, strict=True)
        ]
    head = torch.from_numpy(np.array(request.arrays["weight"], np.float32))
    heads = fit(
        head.expand(len(sites), -1, -1),
        [site.examples[0] for site in sites],
        task=task,
        plan=request.plan,
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
