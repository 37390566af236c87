"""Who asks, and by which recipe: signed, or not believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict
from toys import WIDTH, Toys, toy_plan

from fedtl.errors import FedtlError
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe
from fedtl.site.invitation import fingerprint_of
from fedtl.site.metrics import site_evaluation
from fedtl.site.policy import SitePolicy
from fedtl.site.site import Site
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.wire.charter import CHARTER, read_charter, sign_charter
from fedtl.wire.messages import STATISTICS, TRAIN, Request, read_request

KEY, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
OPEN = SitePolicy(unprotected=True, clear_metrics=True)


def recipe(**tables: Any) -> Recipe:
    return Recipe.model_validate({"privacy": {"enabled": False}, **tables})


def signed(asked: Recipe, key: Identity = KEY, run: str = "run-1") -> Request:
    record = sign_charter(key, run=run, recipe=asked)
    request = read_request(RecordDict({CHARTER: record}))
    head = initial_head("linear", WIDTH, 3)
    return replace(request, arrays=head, task=TrainTask.of(asked))


def refused(site: Site, request: Request) -> str:
    """Return the code of all three kinds of request, which have to agree; empty if answered."""

    def code(ask: Any) -> str:
        try:
            ask()
        except FedtlError as error:
            return error.code
        return ""

    codes = {
        code(lambda: site.account(request, TRAIN, "1")),
        code(lambda: site.sums(replace(request, task=None, arrays={}), STATISTICS, 0)),
        code(lambda: site_evaluation(site, replace(request, task=None))),
    }
    codes.discard("charter.task" if not request.task else "-")
    (only,) = codes
    return only


def site(policy: SitePolicy) -> Site:
    made = Toys(simulated=False).site("site-a")
    made.policy = policy
    return made


def test_only_named_coordinators_and_recipes_are_answered() -> None:
    mine, known = recipe(), fingerprint_of(KEY.public)
    by_key = replace(OPEN, coordinators=(known,))
    by_recipe = replace(OPEN, recipes=(mine.digest(),))
    for policy, code in ((by_key, "policy.coordinator"), (by_recipe, "policy.recipe")):
        assert refused(site(policy), replace(signed(mine), charter=None)) == code
        assert refused(site(policy), signed(mine)) == ""
    assert refused(site(by_key), signed(mine, OTHER)) == "policy.coordinator"
    assert refused(site(by_recipe), signed(recipe(seed=2))) == "policy.recipe"


def test_a_charter_that_was_changed_is_none() -> None:
    record = sign_charter(KEY, run="run-1", recipe=recipe())
    body, signature = record["body"], record["signature"]
    assert isinstance(body, bytes)
    assert isinstance(signature, bytes)
    forged = [
        {"body": body.replace(b"run-1", b"run-2")},
        {"key": OTHER.public},
        {"signature": signature[:-1]},
        {"signature": bytes(64)},
        {"key": "text"},
        {"body": b""},
        {"body": body + b" " * (1 << 17)},
    ]
    for change in forged:
        content = RecordDict({CHARTER: ConfigRecord({**dict(record.items()), **change})})
        with pytest.raises(FedtlError) as error:
            read_charter(content)
        assert error.value.code == "charter.invalid"
    assert read_charter(RecordDict({CHARTER: record})) is not None
    assert read_charter(RecordDict()) is None


@pytest.mark.parametrize("run", ["", "x" * 101, "two\nlines", 7])
def test_a_run_has_a_short_printable_name(run: Any) -> None:
    with pytest.raises(FedtlError) as error:
        read_charter(RecordDict({CHARTER: sign_charter(KEY, run=run, recipe=recipe())}))
    assert error.value.code == "charter.invalid"


def test_who_carries_a_charter_cannot_ask_for_another_task() -> None:
    """The ClientApp sees the charter, and its code may be anybody's."""
    mine = recipe(train={"local_steps": 2})
    asked = signed(mine)
    assert asked.task is not None
    there = site(OPEN)
    there.account(asked, TRAIN, "1")
    for change in ({"steps": 100}, {"lr": 1.0}, {"sampling": "poisson", "batch_size": 1}):
        forged = replace(asked, task=replace(asked.task, **change))  # type: ignore[arg-type]
        with pytest.raises(FedtlError) as error:
            there.account(forged, TRAIN, "1")
        assert error.value.code == "charter.task"


def test_nor_for_a_weaker_plan() -> None:
    private = recipe(privacy={"epsilon": 8.0})
    there, plan = site(OPEN), toy_plan()
    asked = signed(private)
    assert refused(there, replace(asked, plan=None)) == "charter.plan"
    there.account(replace(asked, plan=replace(plan, epsilon=8.0)), TRAIN, "1")
    for weaker in (replace(plan, epsilon=9.0), replace(plan, epsilon=8.0, delta=1e-4)):
        with pytest.raises(FedtlError) as error:
            there.account(replace(asked, plan=weaker), TRAIN, "1")
        assert error.value.code == "charter.plan"
    with pytest.raises(FedtlError) as error:
        there.account(replace(signed(recipe()), plan=plan), TRAIN, "1")
    assert error.value.code == "charter.plan"
