"""Which replies a strategy gets to see: one per site, finite, of the right shape, in name order."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fedtl.errors import FedtlError
from fedtl.train.heads import n_classes, trained_part
from fedtl.types import Arrays, Evaluation
from fedtl.wire.arrays import unpack
from fedtl.wire.evaluation import read_evaluation
from fedtl.wire.messages import RELEASES, STEPS, TRAIN, WEIGHT, records

MISSING, SHAPE, NOT_FINITE = "reply.missing", "update.shape", "update.not-finite"
INVALID, LENGTH, LATE = "message.invalid", "secagg.length", "reply.late"
LOST = frozenset({MISSING, SHAPE, NOT_FINITE, INVALID, LENGTH, LATE})
"""Failures of replies, not of sites: what they carried has left the site."""

_MOST_STEPS = 1 << 31
_CODE = re.compile(r"[a-z][a-z0-9.-]{0,60}")

Signature = tuple[tuple[str, tuple[int, ...]], ...]


def usable_replies(
    messages: Sequence[Message],
    replies: Sequence[Message],
    sites: Mapping[int, str],
    head: Arrays,
) -> tuple[list[Message], dict[str, str]]:
    """Split replies into those to aggregate and those to leave out, with the reason.

    Parameters
    ----------
    messages, replies : sequence of Message
        What was sent and what came back, in any order.
    sites : mapping of int to str
        Node id to site name.
    head : mapping of str to NDArray
        The head that was sent: a trained head must have its shape. Other answers (statistics) must
        have the shape most of them have.

    Returns
    -------
    tuple
        Usable replies in name order, and site name to failure code: the site's own code,
        ``reply.missing``, ``update.not-finite``, ``update.shape`` or ``message.invalid``.
    """
    asked = {m.metadata.dst_node_id: m.metadata.message_type for m in messages}
    failures = {sites[node]: MISSING for node in asked}
    signed: dict[str, tuple[Message, Signature]] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in asked or sites[node] in signed:
            continue
        result = _inspect(reply)
        if isinstance(result, str):
            failures[sites[node]] = result
        else:
            failures.pop(sites[node], None)
            signed[sites[node]] = (reply, result)
    expected = _expected(set(asked.values()), signed, head)
    for name in [n for n, (_, signature) in signed.items() if signature != expected]:
        failures[name] = SHAPE
        del signed[name]
    return [signed[name][0] for name in sorted(signed)], failures


def usable_evaluations(
    messages: Sequence[Message],
    replies: Sequence[Message],
    sites: Mapping[int, str],
    head: Arrays,
) -> tuple[dict[str, tuple[Message, Evaluation]], dict[str, str]]:
    """Read the answers to an evaluation, in name order.

    Returns
    -------
    tuple
        Site name to reply and result, and site name to failure code for those left out. Replies
        that do not say the same kinds of things as most do are left out: strategies would give up.
    """
    asked = {m.metadata.dst_node_id for m in messages}
    failures = {sites[node]: MISSING for node in asked}
    results: dict[str, tuple[Message, Evaluation]] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in asked or sites[node] in results:
            continue
        result = _evaluation(reply, n_classes(head))
        if isinstance(result, str):
            failures[sites[node]] = result
        else:
            failures.pop(sites[node], None)
            results[sites[node]] = (reply, result)
    kinds = {
        name: (r.confusion is None, r.personal is None)
        for name, (_, r) in results.items()
        if r.measured
    }
    usual = Counter(kinds.values()).most_common(1)
    for name in [n for n, kind in kinds.items() if kind != usual[0][0]]:
        failures[name] = SHAPE
        del results[name]
    return dict(sorted(results.items())), failures


def _evaluation(reply: Message, classes: int) -> Evaluation | str:
    """Read one answer, or say why it cannot be used."""
    if reply.has_error():
        return failure_code(reply)
    try:
        result = read_evaluation(reply)
    except FedtlError as error:
        return error.code
    if result.confusion is not None and len(result.confusion) != classes:
        return SHAPE
    return result


def _inspect(reply: Message) -> Signature | str:
    """Return the names and shapes of a reply's arrays, or why it cannot be used."""
    if reply.has_error():
        return failure_code(reply)
    heads, metrics = records(reply.content, ArrayRecord), records(reply.content, MetricRecord)
    if len(heads) != 1 or len(metrics) != 1 or not _is_weighted(metrics[0]):
        return INVALID
    try:
        arrays = unpack(heads[0])
    except FedtlError as error:
        return error.code
    if not all(np.isfinite(values).all() for values in arrays.values()):
        return NOT_FINITE
    return _signature(arrays)


def failure_code(reply: Message) -> str:
    """Return a site's failure code. Flower's runtimes write exception texts there: never those."""
    reason = reply.error.reason or ""
    return reason if _CODE.fullmatch(reason) else "site.failed"


def _is_weighted(metrics: MetricRecord) -> bool:
    """Say whether strategies can average by these metrics: Flower's give up on the whole round."""
    weight, steps = metrics.get(WEIGHT), metrics.get(STEPS, 1)
    return (
        set(metrics) - {STEPS} == {WEIGHT, RELEASES}
        and isinstance(steps, int)
        and 0 < steps < _MOST_STEPS
        and isinstance(weight, int | float)
        and 0 < weight < math.inf
        and isinstance(metrics[RELEASES], int)
    )


def _signature(arrays: Arrays) -> Signature:
    return tuple(sorted((name, values.shape) for name, values in arrays.items()))


def _expected(
    kinds: set[str], signed: Mapping[str, tuple[Message, Signature]], head: Arrays
) -> Signature:
    if kinds == {TRAIN}:
        return _signature(trained_part(head))
    counts = Counter(signature for _, signature in signed.values())
    return counts.most_common(1)[0][0] if counts else ()
