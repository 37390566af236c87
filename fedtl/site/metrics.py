"""What a site tells of its held-out examples and of its labels: noised, in clear, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtl.site.origin import check_origin
from fedtl.site.personal import own_head
from fedtl.site.site import Site, paid
from fedtl.train.batches import Examples, units_of
from fedtl.train.counts import evaluate, label_counts
from fedtl.train.heads import check_head, trained_part
from fedtl.types import Evaluation, Update
from fedtl.wire.messages import EVALUATE, LABELS, MECHANISMS, Request, release_of

_SUMS, _CONFUSION = "sums", "confusion"


def site_evaluation(site: Site, request: Request, spent: int = 0, run: str = "") -> Evaluation:
    """Evaluate a received head on a site's held-out examples, or the site's own version of it.

    Noised where the request's plan covers metrics, and paid for with the held-out examples' budget;
    else in clear, where the site's policy allows it. In clear, a site with fewer than
    ``suppress_below`` held-out units answers like one that holds out nothing.

    Parameters
    ----------
    spent : int
        Such releases of this run so far, of a site without a ledger.
    run : str
        Flower's run id.

    Raises
    ------
    PrivacyError
        With code ``policy.metrics``, ``privacy.spent`` or ``privacy.budget``.
    """
    release, classes = release_of(request, EVALUATE), len(site.classes)
    check_head(request.arrays, width=site.width, classes=classes)
    check_origin(site.name, site.rules, request)
    if release is None:
        return _in_clear(site, request, classes, run)
    account = site.account(request, EVALUATE, run)
    if account is not None and (given := account.answered()) is not None:
        return _evaluation_of(given)
    _check_units(held_out := site.whitened(request.arrays)[1], release.unit)
    own = own_head(site, request, run)  # costs nothing, and what it refuses must not either
    releases = paid(account, release, spent, 1)
    # noise on counts of held-out examples hides no training example of a head without noise
    head = own.heads[0] if own is not None and own.rule.private else trained_part(request.arrays)
    result = evaluate(
        head,
        held_out,
        classes,
        release=release,
        streams=site.streams(request, "metrics"),
        confusion=request.confusion,
    )
    result = replace(result, releases=releases)
    return result if account is None else _evaluation_of(account.keep(_update_of(result)))


def _in_clear(site: Site, request: Request, classes: int, run: str) -> Evaluation:
    if not request.silent:
        site.rules.check_clear(site.name)
    own = own_head(site, request, run)
    held_out = site.whitened(request.arrays)[1]
    if request.silent or _units(held_out) < site.rules.suppress_below:
        return Evaluation(0.0, 0.0, 0.0)
    # counts tell of the training examples of a head that was trained on them without noise
    private = own is not None and own.rule.private and request.plan is not None
    if own is not None and (private or site.rules.unprotected):
        return own.evaluation(classes, confusion=request.confusion)
    head = trained_part(request.arrays)
    return evaluate(head, held_out, classes, confusion=request.confusion)


def site_labels(site: Site, request: Request, spent: int = 0, run: str = "") -> Update:
    """Count a site's training examples by class: array ``labels`` ``[C]``, float64.

    Parameters
    ----------
    spent : int
        Such releases of this run so far, of a site without a ledger.
    run : str
        Flower's run id.

    Raises
    ------
    PrivacyError
        With code ``policy.metrics``, ``privacy.spent`` or ``privacy.budget``.
    """
    release, classes = release_of(request, LABELS), len(site.classes)
    if release is None:
        site.rules.check_clear(site.name)
    shared = release is not None and release.honest_sites > 0
    site.rules.check_update(site.name, private=True, shared=shared, sealed=False)
    account = site.account(request, LABELS, run)
    if account is not None and release is not None and (given := account.answered()) is not None:
        return given
    train = site.examples[0]
    site.rules.check_size(site.name, len(train))
    if release is not None:
        _check_units(train, release.unit)
    releases = paid(account, release, spent, 1)
    streams = site.streams(request, "labels")
    counts = label_counts(train, classes, release=release, streams=streams)
    update = Update({MECHANISMS[LABELS]: counts}, 1.0, releases)
    return update if account is None or release is None else account.keep(update)


def _units(examples: Examples) -> int:
    """Return the number of groups, where the site knows them, else of examples."""
    return len(examples) if examples.units is None else examples.units.count


def _check_units(examples: Examples, unit: str) -> None:
    """Find out before anything is paid whether the plan's groups are known."""
    if unit == "group":
        units_of(examples)


def _update_of(result: Evaluation) -> Update:
    """Return an evaluation as the ledger stores replies."""
    arrays = {_SUMS: np.array([result.wrong, result.right, result.losses])}
    if result.confusion is not None:
        arrays[_CONFUSION] = result.confusion
    return Update(arrays, 1.0, result.releases)


def _evaluation_of(update: Update) -> Evaluation:
    wrong, right, losses = update.arrays[_SUMS].tolist()
    return Evaluation(wrong, right, losses, update.arrays.get(_CONFUSION), update.releases)
