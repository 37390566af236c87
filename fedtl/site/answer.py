"""From message to answer: what the ClientApp and the stacked Grid both call.

How many private releases a site without a ledger has made in this run is kept in Flower's
``Context.state``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from flwr.app import ConfigRecord, Context, Message

from fedtl.errors import SiteFailure
from fedtl.site.site import Site, failure_of, train_cohort
from fedtl.types import Update
from fedtl.wire.messages import (
    Request,
    description_reply,
    evaluation_reply,
    failure_reply,
    read_request,
    update_reply,
)

SiteOf = Callable[[Context], Site]
_STATE = "fedtl"


def answer_train(pairs: Sequence[tuple[Message, Context]], site_of: SiteOf) -> list[Message]:
    """Answer training messages; those that share one content are trained as one cohort.

    A second message to the same site waits for the next cohort: it spends on top of the first.
    """
    replies: list[Message | None] = [None] * len(pairs)
    cohorts: dict[tuple[int, int], list[int]] = {}
    seen: Counter[int] = Counter()
    for at, (message, context) in enumerate(pairs):
        cohorts.setdefault((id(message.content), seen[context.node_id]), []).append(at)
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
        spent = [_spent(s, context) for s, (_, context) in zip(sites, pairs, strict=True)]
        answers = train_cohort(sites, request, spent, [str(c.run_id) for _, c in pairs])
    except Exception as error:
        if len(pairs) > 1:  # one site's fault must not cost the others anything
            return [reply for one in pairs for reply in _answer_cohort([one], site_of)]
        return [failure_reply(pairs[0][0], failure_of(error, "site"))]
    return [
        _reply(message, context, site, answer)
        for (message, context), site, answer in zip(pairs, sites, answers, strict=True)
    ]


def _reply(message: Message, context: Context, site: Site, answer: Update | SiteFailure) -> Message:
    if isinstance(answer, SiteFailure):
        return failure_reply(message, answer)
    if answer.releases and site.ledger is None:
        context.state[_STATE] = ConfigRecord({"releases": answer.releases - site.spent_before})
    return update_reply(message, answer)


def _spent(site: Site, context: Context) -> int:
    record = context.state.get(_STATE)
    releases = record.get("releases") if isinstance(record, ConfigRecord) else 0
    return site.spent_before + (releases if isinstance(releases, int) else 0)


def _guarded(message: Message, context: Context, answer: Callable[[Request], Message]) -> Message:
    try:
        return answer(read_request(message.content))
    except Exception as error:
        return failure_reply(message, failure_of(error, "site"))


def answer_statistics(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a request for sufficient statistics."""

    def answer(request: Request) -> Message:
        site = site_of(context)
        update = site.statistics(request, _spent(site, context), str(context.run_id))
        return _reply(message, context, site, update)

    return _guarded(message, context, answer)


def answer_evaluate(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer an evaluation message."""
    return _guarded(
        message,
        context,
        lambda request: evaluation_reply(message, site_of(context).evaluate(request.arrays)),
    )


def answer_describe(message: Message, context: Context, site_of: SiteOf) -> Message:
    """Answer a query for the site's public description."""
    try:
        return description_reply(message, site_of(context).describe())
    except Exception as error:
        return failure_reply(message, failure_of(error, "site"))
