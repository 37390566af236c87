"""Both ends of a message agree, and what is no message of ours ends in a code."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_plan

from fedtl.errors import FedtlError, SiteFailure
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity
from fedtl.types import Description, Evaluation, Personal, Update
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.evaluation import evaluation_reply, read_evaluation
from fedtl.wire.messages import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    description_reply,
    failure_reply,
    read_description,
    read_request,
    task_config,
    update_reply,
)

HEAD = {"weight": np.ones((3, 6), np.float32)}
TASK = TrainTask(rounds=3)


def request(kind: str = TRAIN, content: RecordDict | None = None) -> Message:
    ensure_identity()
    return Message(content or RecordDict(), 1001, kind)


def content(**config: object) -> RecordDict:
    record = task_config(TASK, toy_plan(), seed=5)
    for key, value in config.items():
        record[key.replace("_", "-")] = value  # type: ignore[assignment]
    return RecordDict({"arrays": pack(HEAD), "config": record})


def test_a_request_says_what_the_server_meant() -> None:
    got = read_request(content(server_round=7, proximal_mu=0.25))
    assert (got.round, got.seed, got.plan) == (7, 5, toy_plan())
    assert got.task == TASK
    assert got.objective == ObjectiveName("fedprox", {"mu": 0.25})
    np.testing.assert_array_equal(got.arrays["weight"], HEAD["weight"])


def test_a_request_without_plan_or_seed_has_none() -> None:
    got = read_request(RecordDict({"config": task_config(TASK, None)}))
    assert (got.plan, got.seed, got.arrays, got.round) == (None, None, {}, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"task": "no task"},
        {"task": 3},
        {"plan": "no plan"},
        {"plan": 1.0},
        {"server_round": "one"},
        {"server_round": 1.5},
        {"seed": "5"},
        {"confusion": 1},
        {"proximal_mu": "much"},
        {"proximal_mu": True},
        {"objective": "no objective"},
        {"objective": 3},
        {"objective": '{"name": "fedprox", "options": {"mu": [1]}, "source": ""}'},
        {"objective": '{"name": "fedprox", "options": {}, "source": "", "code": "x"}'},
        {"objective": '{"name": 1, "options": {}, "source": ""}'},
        {"objective": "[" * 9000},
    ],
    ids=str,
)
def test_a_request_that_is_not_understood_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(FedtlError) as error:
        read_request(content(**bad))
    assert error.value.code


def test_a_request_with_two_heads_is_refused() -> None:
    both = content()
    both["more"] = pack(HEAD)
    with pytest.raises(FedtlError):
        read_request(both)


def test_an_update_reply_carries_arrays_weight_and_releases_only() -> None:
    reply = update_reply(request(), Update(HEAD, 1.0, 5))
    assert dict(reply.content["metrics"].items()) == {"num-examples": 1.0, "releases": 5}
    assert set(reply.content) == {"arrays", "metrics"}
    np.testing.assert_array_equal(unpack(reply.content["arrays"])["weight"], HEAD["weight"])


counts = st.integers(1, 5).flatmap(
    lambda c: st.lists(st.integers(0, 50), min_size=c * c, max_size=c * c)
)


@given(counts, st.floats(0, 100))
def test_an_evaluation_arrives_as_it_was(values: list[int], loss: float) -> None:
    side = int(len(values) ** 0.5)
    cells = np.array(values, float).reshape(side, side)
    sent = Evaluation(cells.sum() - np.trace(cells), np.trace(cells), loss, cells)
    got = read_evaluation(evaluation_reply(request(EVALUATE), sent))
    assert (got.n, got.right, got.losses) == (sent.n, sent.right, sent.losses)
    np.testing.assert_array_equal(got.confusion, sent.confusion)


@given(st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=12), st.booleans())
def test_a_noised_evaluation_arrives_as_it_was(values: list[float], confusion: bool) -> None:
    cells = np.array(values[3:]).reshape(3, 3) if confusion else None
    sent = Evaluation(*values[:3], cells, 2)
    got = read_evaluation(evaluation_reply(request(EVALUATE), sent))
    assert (got.wrong, got.right, got.losses, got.releases) == (*values[:3], 2)
    assert (got.confusion is None) == (not confusion)
    if cells is not None:
        np.testing.assert_array_equal(got.confusion, cells)


def test_the_weight_of_a_noised_evaluation_is_made_of_its_noised_counts() -> None:
    """A strategy gets ``num-examples`` to average by, and it must not be the true number."""
    for wrong, right, weight in ((1.25, 3.5, 4.75), (-3.0, 2.0, 1.0)):
        reply = evaluation_reply(request(EVALUATE), Evaluation(wrong, right, 0.3, releases=1))
        assert reply.content["metrics"]["num-examples"] == weight


GOOD = {
    **{"num-examples": 4.0, "loss": 0.5, "accuracy": 0.75, "confusion": [2.0, 1.0, 0.0, 1.0]},
    **{"wrong": 1.0, "right": 3.0, "losses": 2.0, "releases": 0},
}
NOISED = GOOD | {"releases": 1}
OWN = GOOD | {"personal": [2, 3, 4, 1, 0, 1, 1, 4, 2]}
BAD = {
    "empty": {},
    "no counts": {k: v for k, v in GOOD.items() if k != "right"},
    "no releases": {k: v for k, v in GOOD.items() if k != "releases"},
    "fewer than none": GOOD | {"releases": -1},
    "other cells": GOOD | {"confusion": [2, 1, 1, 1]},
    "other diagonal": GOOD | {"confusion": [2, 1, 1, 0]},
    "another accuracy": GOOD | {"accuracy": 1.0},
    "another loss": GOOD | {"loss": 0.1},
    "endless": NOISED | {"losses": float("inf"), "loss": float("inf")},
    "cells that are none": NOISED | {"confusion": [float("nan"), 1.0, 0.0, 1.0]},
    "a noised weight of its own": NOISED | {"num-examples": 5.0},
    "not square": GOOD | {"confusion": [2, 1, 1]},
    "negative": GOOD | {"confusion": [5, -1, 0, 0]},
    "another count": GOOD | {"num-examples": 400},
    "list count": GOOD | {"num-examples": [4]},
    "list loss": GOOD | {"loss": [0.5]},
    "scalar confusion": GOOD | {"confusion": 4},
    "float count": GOOD | {"num-examples": float("nan")},
    "too few of a personal head": OWN | {"personal": [2, 3, 4, 1, 0, 1, 4, 2]},
    "more right than there are": OWN | {"personal": [2, 3, 5, 1, 0, 1, 1, 4, 2]},
    "more that differ than there are": OWN | {"personal": [2, 3, 4, 1, 0, 2, 3, 4, 2]},
    "fewer right than none": OWN | {"personal": [-1, 3, 4, 1, 0, 1, 1, 4, 2]},
    "a fourth head": OWN | {"personal": [2, 3, 4, 1, 0, 1, 1, 4, 3]},
    "halves of a personal head": OWN | {"personal": [2.5, 3.0, 4.0, 1.0, 0.0, 1.0, 1.0, 4.0, 2.0]},
    "a personal head with noise": OWN | {"releases": 1},
    "one number of a personal head": OWN | {"personal": 4},
}


def test_the_evaluations_that_the_bad_ones_are_made_of_are_good() -> None:
    for good in (GOOD, NOISED, OWN, {k: v for k, v in GOOD.items() if k != "confusion"}):
        reply = Message(RecordDict({"metrics": MetricRecord(good)}), reply_to=request(EVALUATE))  # type: ignore[arg-type]
        assert read_evaluation(reply).accuracy == 0.75


def test_what_a_site_says_of_its_heads_arrives_as_it_was() -> None:
    sent = Evaluation(1, 3, 0.5, personal=Personal(2, 3, 3, 1, 0, 1, 2, 4, "global"))
    assert read_evaluation(evaluation_reply(request(EVALUATE), sent)) == sent


@pytest.mark.parametrize("what", BAD)
def test_an_evaluation_that_is_none_is_refused(what: str) -> None:
    metrics = MetricRecord(BAD[what])  # type: ignore[arg-type]
    reply = Message(RecordDict({"metrics": metrics}), reply_to=request(EVALUATE))
    with pytest.raises(FedtlError) as error:
        read_evaluation(reply)
    assert error.value.code == "message.invalid"


def test_a_failure_is_no_evaluation() -> None:
    with pytest.raises(FedtlError):
        read_evaluation(failure_reply(request(EVALUATE), SiteFailure("data.unreadable")))


@given(st.text(max_size=20), st.lists(st.text(max_size=9), max_size=4), st.integers(1, 10**6))
def test_a_description_arrives_as_it_was(name: str, classes: list[str], width: int) -> None:
    sent = Description(name, tuple(classes), "digest", width, "0.1")
    assert read_description(description_reply(request(DESCRIBE), sent)) == sent


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "a", "classes": ["x"], "width": 3},
        {"name": 1, "classes": ["x"], "width": 3, "backbone": "b", "version": "v"},
        {"name": "a", "classes": "x", "width": 3, "backbone": "b", "version": "v"},
        {"name": "a", "classes": ["x"], "width": 3.5, "backbone": "b", "version": "v"},
    ],
    ids=str,
)
def test_a_description_that_is_none_is_refused(config: dict[str, object]) -> None:
    reply = Message(RecordDict({"description": ConfigRecord(config)}), reply_to=request(DESCRIBE))  # type: ignore[arg-type]
    with pytest.raises(FedtlError) as error:
        read_description(reply)
    assert error.value.code == "message.invalid"


def test_a_failure_carries_its_code_and_nothing_else() -> None:
    reply = failure_reply(request(), SiteFailure("data.unreadable"))
    assert reply.error.reason == "data.unreadable"
    assert not reply.has_content()
