"""A site's own rules come first; without any, it lets out little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from toys import WIDTH, Toys, toy_plan, toy_records

from fedtl.errors import PrivacyError, SiteFailure
from fedtl.privacy.ledger import Budget, Ledger
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.site.cohort import train_cohort
from fedtl.site.metrics import site_evaluation
from fedtl.site.policy import SIMULATED, STRICT, SitePolicy
from fedtl.site.site import Site
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity
from fedtl.types import Update
from fedtl.wire.messages import (
    DESCRIBE,
    STATISTICS,
    Request,
    description_reply,
    read_description,
)

ensure_identity()


def asked(plan: PrivacyPlan | None) -> Request:
    return Request(initial_head("linear", WIDTH, 3), TrainTask(rounds=5), plan, 1, None)


def answer(policy: SitePolicy | None, plan: PrivacyPlan | None) -> Update | SiteFailure:
    site = Toys(simulated=False).site("site-a")
    site.policy = policy
    return train_cohort([site], asked(plan), [0])[0]


def test_a_real_site_without_a_policy_hands_out_no_raw_update() -> None:
    """A coordinator who leaves the plan out of his messages must not get what it protects."""
    for policy in (None, STRICT, SitePolicy(clear_metrics=True)):
        assert answer(policy, None) == SiteFailure("policy.unprotected")
        assert isinstance(answer(policy, toy_plan()), Update)
    assert isinstance(answer(SitePolicy(unprotected=True), None), Update)


def test_nor_raw_sums() -> None:
    site = Toys(simulated=False).site("site-a")
    with pytest.raises(PrivacyError) as error:
        site.sums(replace(asked(None), arrays={}, task=None), STATISTICS, 0)
    assert error.value.code == "policy.unprotected"
    assert "policy" in error.value.next_step


def test_a_policy_that_wants_sums_only_refuses_private_updates_too() -> None:
    for plan in (None, toy_plan()):
        assert answer(SitePolicy(only_sealed=True), plan) == SiteFailure("secagg.required")


def test_a_simulated_site_allows_what_the_simulator_may_know_anyway() -> None:
    site = Toys().site("site-a")
    assert site.rules == SIMULATED
    assert isinstance(train_cohort([site], asked(None), [0])[0], Update)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suppress_below": -1}, "suppress_below = -1"),
        ({"least_examples": -1}, "least_examples = -1"),
        ({"least_sites": -1}, "least_sites = -1"),
        ({"unprotected": True, "only_sealed": True}, "unprotected"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PrivacyError, match=said) as error:
        SitePolicy(**changes)
    assert error.value.next_step


def test_a_site_with_too_few_examples_takes_no_part_and_pays_nothing() -> None:
    for kind in ("train", "sums"):
        site = Toys(simulated=False).site("site-a")
        n = len(site.examples[0])
        site.policy = SitePolicy(unprotected=True, least_examples=n)
        assert answered(site, kind) == "answered"
        site.policy = replace(site.policy, least_examples=n + 1)
        assert answered(site, kind) == "policy.examples"


def test_kinds_of_releases_that_a_policy_does_not_name_are_refused() -> None:
    for kind, named in (("train", "gradients"), ("sums", "statistics")):
        site = Toys(simulated=False).site("site-a")
        site.policy = SitePolicy(unprotected=True, releases=(named,))
        assert answered(site, kind) == "answered"
        site.policy = replace(site.policy, releases=("metrics",))
        assert answered(site, kind) == "policy.release"


def test_a_sum_of_too_few_sites_is_none_to_hide_in() -> None:
    policy = SitePolicy(least_sites=5)
    policy.check_sum("site-a", 5)
    with pytest.raises(PrivacyError) as error:
        policy.check_sum("site-a", 4)
    assert error.value.code == "policy.sites"


def answered(site: Site, kind: str) -> str:
    """Return the code with which a site refuses, or that it did not."""
    request = asked(None)
    if kind == "train":
        given = train_cohort([site], request, [0])[0]
        return given.code if isinstance(given, SiteFailure) else "answered"
    try:
        if kind == "sums":
            site.sums(replace(request, arrays={}, task=None), STATISTICS, 0)
        else:
            site_evaluation(site, request)
    except PrivacyError as error:
        return error.code
    return "answered"


def test_what_is_left_of_the_budget_is_told_where_the_policy_says_so(tmp_path: Path) -> None:
    site = Toys(simulated=False).site("site-a")
    with Ledger.open(tmp_path / "ledger", durable=False) as site.ledger:
        site.dataset = toy_records(1)
        site.policy = SitePolicy(budget=Budget(8.0, 1e-5))
        assert site.describe().epsilon_left is None
        site.policy = replace(site.policy, tell_budget=True)
        assert told(site) == 8.0
        plan = plan_for(Release(mechanism="gradients", public_size=40), epsilon=3, delta=1e-5)
        assert isinstance(train_cohort([site], asked(plan), [0], ["1"])[0], Update)
        assert told(site) == pytest.approx(5.0, abs=0.01)


def told(site: Site) -> float | None:
    """Return what a server reads in the site's answer."""
    asked_for = Message(RecordDict(), 1, DESCRIBE)
    return read_description(description_reply(asked_for, site.describe())).epsilon_left
