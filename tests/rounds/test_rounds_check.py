"""Which replies reach a strategy, and what is said about the others."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message
from hypothesis import given
from hypothesis import strategies as st
from replies import heads, raw_reply, reply, request
from toys import CANARY

from fedtl.rounds.check import failure_code, usable_evaluations, usable_replies
from fedtl.types import Evaluation
from fedtl.wire.messages import EVALUATE, STATISTICS, evaluation_reply

SITES = {1003: "a", 1001: "b", 1002: "c"}
HEAD = heads(1)[0]


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
        result = Evaluation(classes, 0.1, np.eye(classes, dtype=np.int64))
        return evaluation_reply(request(node, EVALUATE), result)

    replies = [evaluated(1003, 3), evaluated(1001, 4), reply(1002, HEAD)]
    assert list(usable_evaluations(replies, SITES, HEAD)) == ["a"]
    assert list(usable_evaluations([evaluated(1002, 3), evaluated(1003, 3)], SITES, HEAD)) == [
        "a",
        "c",
    ]
    assert usable_evaluations([evaluated(9, 3)], SITES, HEAD) == {}
