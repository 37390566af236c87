"""Which replies reach a strategy, and what is said about the others."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message
from hypothesis import given
from hypothesis import strategies as st
from replies import heads, raw_reply, reply, request
from toys import CANARY

from fedtl.errors import SiteFailure
from fedtl.rounds.check import failure_code, usable_evaluations, usable_replies
from fedtl.types import Evaluation
from fedtl.wire.evaluation import evaluation_reply
from fedtl.wire.messages import EVALUATE, STATISTICS, failure_reply

SITES = {1003: "a", 1001: "b", 1002: "c"}
HEAD = heads(1)[0]
NOTHING = Evaluation(0, 0, 0.0)


def sent(kind: str = "train") -> list[Message]:
    return [request(node, kind) for node in SITES]


@given(st.permutations(list(SITES)), st.sets(st.sampled_from(list(SITES))))
def test_replies_come_in_name_order_and_the_missing_are_named(
    order: list[int], missing: set[int]
) -> None:
    replies = [reply(n, HEAD) for n in order if n not in missing]
    usable, failures = usable_replies(sent(), replies, SITES, HEAD)
    names = [SITES[r.metadata.src_node_id] for r in usable]
    assert names == sorted(set(SITES.values()) - {SITES[n] for n in missing})
    assert failures == {SITES[n]: "reply.missing" for n in missing}


def test_a_second_reply_of_a_site_and_replies_of_strangers_do_not_count() -> None:
    first, second = heads(2, 5)
    replies = [reply(1001, first), reply(1001, second), reply(7, first)]
    usable, failures = usable_replies(sent(), replies, SITES, HEAD)
    assert usable == replies[:1]
    assert failures == {"a": "reply.missing", "c": "reply.missing"}


@pytest.mark.parametrize(
    "reason", [f"Exception at /secret/{CANARY}", "", "A" * 200, "Not a code", None]
)
def test_an_exceptions_text_never_becomes_a_failure_code(reason: str | None) -> None:
    """Flower's runtimes send str(exception) of a ClientApp that raises."""
    replies = [Message(Error(code=0, reason=reason), reply_to=request(1001))]
    _, failures = usable_replies(sent(), replies, SITES, HEAD)
    assert failures["b"] == "site.failed"


def test_a_sites_own_code_is_kept() -> None:
    coded = Message(Error(code=1, reason="data.unreadable"), reply_to=request(1001))
    assert failure_code(coded) == "data.unreadable"


def test_large_but_finite_updates_are_used_without_a_warning() -> None:
    huge = {"weight": np.full((3, 6), 3e38, np.float32)}  # their sum overflows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usable, _ = usable_replies(sent(), [reply(1001, huge)], SITES, HEAD)
    assert len(usable) == 1


def test_statistics_must_have_the_shape_most_have() -> None:
    shapes = {1003: 10, 1001: 10, 1002: 11}
    replies = [reply(n, {"gram": np.zeros(d)}, kind=STATISTICS) for n, d in shapes.items()]
    usable, failures = usable_replies(sent(STATISTICS), replies, SITES, HEAD)
    assert len(usable) == 2
    assert failures == {"c": "update.shape"}


def test_bytes_that_are_no_array_are_named() -> None:
    hostile = ArrayRecord({"weight": Array("float32", (3, 6), "numpy.ndarray", b"cos\nsystem\n")})
    _, failures = usable_replies(sent(), [raw_reply(1001, hostile)], SITES, HEAD)
    assert failures["b"] == "message.invalid"


def test_evaluations_that_are_none_or_of_other_classes_are_left_out() -> None:
    def evaluated(node: int, classes: int) -> Message:
        result = Evaluation(0, classes, 0.1, np.eye(classes))
        return evaluation_reply(request(node, EVALUATE), result)

    def usable(*replies: Message) -> tuple[list[str], dict[str, str]]:
        results, failures = usable_evaluations(sent(EVALUATE), replies, SITES, HEAD)
        return list(results), failures

    refused = failure_reply(request(1001, EVALUATE), SiteFailure("policy.metrics"))
    assert usable(evaluated(1003, 3), evaluated(1001, 4), reply(1002, HEAD)) == (
        ["a"],
        {"b": "update.shape", "c": "message.invalid"},
    )
    assert usable(evaluated(1002, 3), evaluated(1003, 3), refused, evaluated(9, 3)) == (
        ["a", "c"],
        {"b": "policy.metrics"},
    )
    assert usable() == ([], dict.fromkeys("abc", "reply.missing"))


def test_evaluations_that_say_less_or_more_than_most_are_left_out() -> None:
    """Flower's averages end the whole run where two sites' metrics differ."""
    whole = Evaluation(0, 3, 0.1, np.eye(3))
    for results in ((whole, whole, replace(whole, confusion=None)), (whole, whole, NOTHING)):
        replies = [
            evaluation_reply(request(node, EVALUATE), one)
            for node, one in zip(SITES, results, strict=True)
        ]
        found, failures = usable_evaluations(sent(EVALUATE), replies, SITES, HEAD)
        odd = results[2] is not NOTHING
        assert list(found) == (["a", "b"] if odd else ["a", "b", "c"])
        assert failures == ({"c": "update.shape"} if odd else {})
