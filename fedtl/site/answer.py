"""From message to answer: what the ClientApp and the stacked Grid both call.

How many private releases of each kind a site without a ledger has made in this run is kept in
Flower's ``Context.state``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.app import ConfigRecord, Context, Message

from fedtl.errors import SiteFailure
from fedtl.site.cohort import failure_of, train_cohort
from fedtl.site.metrics import site_evaluation, site_labels
from fedtl.site.seal import Seal
from fedtl.site.secure import answer_stage, remember_sealed, seal_of
from fedtl.site.site import Site
from fedtl.site.standing import objection
from fedtl.types import Update
from fedtl.wire.evaluation import evaluation_reply
from fedtl.wire.messages import (
    EVALUATE,
    LABELS,
    MECHANISMS,
    SEALED,
    TRAIN,
    description_reply,
    failure_reply,
    read_request,
    update_reply,
)
from fedtl.wire.sealed import read_stage, stage_content

SiteOf = Callable[[Context], Site]
_STATE = "fedtl"


def answer_train(pairs: Sequence[tuple[Message, Context]], site_of: SiteOf) -> list[Message]:
    """Answer training messages; those that share their records are trained as one cohort.

    A second message to the same site waits for the next cohort: it spends on top of the first.
    """
    replies: list[Message | None] = [None] * len(pairs)
    cohorts: dict[tuple[object, int], list[int]] = {}
    seen: Counter[int] = Counter()
    known: dict[int, frozenset[int]] = {}
    for at, (message, context) in enumerate(pairs):
        content = message.content
        if (shared := known.get(id(content))) is None:
            shared = frozenset(id(r) for key, r in content.items() if key != SEALED)
            known[id(content)] = shared
        cohorts.setdefault((shared, seen[context.node_id]), []).append(at)
        seen[context.node_id] += 1
    for members in cohorts.values():
        chosen = [pairs[at] for at in members]
        for at, reply in zip(members, _answer_cohort(chosen, site_of), strict=True):
            replies[at] = reply
    return [reply for reply in replies if reply is not None]


def _answer_cohort(pairs: Sequence[tuple[Message, Context]], site_of: SiteOf) -> list[Message]:
    try:
        request = read_request(pairs[0][0].content)
        sites = [site_of(context) for _, context in pairs]
        spent = [_spent(s, c, TRAIN) for s, (_, c) in zip(sites, pairs, strict=True)]
        seals = [
            seal_of(message.content, TRAIN, site, context)
            for site, (message, context) in zip(sites, pairs, strict=True)
        ]
        runs = [str(context.run_id) for _, context in pairs]
        answers = train_cohort(sites, request, spent, runs, seals)
    except (Exception, SystemExit) as error:
        if len(pairs) > 1:  # one site's fault must not cost the others anything
            return [reply for one in pairs for reply in _answer_cohort([one], site_of)]
        return [failure_reply(pairs[0][0], failure_of(error, "site"))]
    return [
        _reply(message, context, site, answer, seal)
        for (message, context), site, answer, seal in zip(pairs, sites, answers, seals, strict=True)
    ]


def _reply(
    message: Message,
    context: Context,
    site: Site,
    answer: Update | SiteFailure,
    seal: Seal | None,
) -> Message:
    if isinstance(answer, SiteFailure):
        return failure_reply(message, answer)
    if seal is not None:
        remember_sealed(seal, site, context)
    _remember(site, context, message.metadata.message_type, answer.releases)
    return update_reply(message, answer)


def _remember(site: Site, context: Context, kind: str, releases: int) -> None:
    """Write what a site without a ledger has released in this run."""
    if releases and site.ledger is None:
        mechanism = MECHANISMS[kind]
        record = context.state.get(_STATE)
        counts = dict(record.items()) if isinstance(record, ConfigRecord) else {}
        counts[mechanism] = releases - site.spent_before.get(mechanism, 0)
        context.state[_STATE] = ConfigRecord(counts)


def _spent(site: Site, context: Context, kind: str) -> int:
    record, mechanism = context.state.get(_STATE), MECHANISMS[kind]
    releases = record.get(mechanism) if isinstance(record, ConfigRecord) else 0
    return site.spent_before.get(mechanism, 0) + (releases if isinstance(releases, int) else 0)


def _guarded(message: Message, answer: Callable[[], Message]) -> Message:
    try:
        return answer()
    except (Exception, SystemExit) as error:
        return failure_reply(message, failure_of(error, "site"))


def answer_sums(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a request for sums over the site's examples."""

    def answer() -> Message:
        kind = message.metadata.message_type
        request, site = read_request(message.content), site_of(context)
        seal = seal_of(message.content, kind, site, context)
        spent = _spent(site, context, kind)
        update = site.sums(request, kind, spent, str(context.run_id), seal)
        return _reply(message, context, site, update, seal)

    return _guarded(message, answer)


def answer_secure(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a message of a stage of secure aggregation."""

    def answer() -> Message:
        kind, body = message.metadata.message_type, read_stage(message.content)
        told = answer_stage(kind, body, site_of(context), context)
        return Message(stage_content(told), reply_to=message)

    return _guarded(message, answer)


def answer_evaluate(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer an evaluation message."""

    def answer() -> Message:
        request, site = read_request(message.content), site_of(context)
        spent = _spent(site, context, EVALUATE)
        result = site_evaluation(site, request, spent, str(context.run_id))
        _remember(site, context, EVALUATE, result.releases)
        return evaluation_reply(message, result)

    return _guarded(message, answer)


def answer_labels(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a request for the counts of training labels."""

    def answer() -> Message:
        request, site = read_request(message.content), site_of(context)
        spent = _spent(site, context, LABELS)
        update = site_labels(site, request, spent, str(context.run_id))
        return _reply(message, context, site, update, None)

    return _guarded(message, answer)


def answer_describe(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a query for the site's public description, and whether it would take part in a run."""

    def answer() -> Message:
        site = site_of(context)
        told, request = site.describe(), read_request(message.content)
        if code := objection(site, request, str(context.run_id)):
            told = replace(told, state=code)
        return description_reply(message, told)

    return _guarded(message, answer)
