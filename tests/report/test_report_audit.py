"""The page of an audit: escaped, honest about a broken promise, and drawn without numbers too."""

from __future__ import annotations

from dataclasses import replace

from fedtl.audit.certify import Certified
from fedtl.audit.result import AuditResult, Inversion, Membership
from fedtl.report.audit_page import facts, render_audit, verdict

KEPT = AuditResult(
    name="digits",
    version="0.1.0",
    plan="(8, 1e-05)-DP per example",
    epsilon=8.0,
    delta=1e-5,
    site="site-01",
    mechanism="gradients",
    canaries=4000,
    certified=Certified(1.4789, 3.3, 6.9899),
    significance=0.05,
    membership=Membership(256, 572, 0.64, 0.63, 0.007, 0.035, [0.0, 0.01, 1.0], [0.0, 0.04, 1.0]),
    inversion=Inversion(100, 4e-8, 1.0, 1.0, None, 0.0, 0.1),
    seed=0,
    seconds={"canaries": 1.0},
)


def test_bounds_are_rounded_down_and_claims_up() -> None:
    shown = dict(facts(replace(KEPT, epsilon=7.991)))
    assert shown["Claimed epsilon"].startswith("8.00 ")
    assert shown["At least, for any mechanism"] == "1.47"
    assert shown["At least, for independent canaries"] == "6.98"
    assert shown["Single updates inverted, as released"] == "0.0 %, median error unlimited"


def test_a_bound_above_the_claim_breaks_the_promise_whichever_it_is() -> None:
    assert not KEPT.broken
    for certified in (Certified(8.01, None, None), Certified(1, 8.01, 2), Certified(1, 2, 8.01)):
        broken = replace(KEPT, certified=certified)
        assert broken.broken
        assert verdict(broken) == (
            "THE PROMISE IS BROKEN: epsilon is at least 8.01, but 8.00 is claimed."
        )
        assert "THE PROMISE IS BROKEN" in render_audit(broken)


def test_names_on_the_page_are_escaped() -> None:
    page = render_audit(replace(KEPT, name="<script>x</script>", site="<b>", plan="<i>\x1b"))
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "\x1b" not in page


def test_an_audit_of_sampled_statistics_has_a_page_with_what_there_is() -> None:
    bare = replace(KEPT, certified=Certified(0.0, None, None), membership=None, inversion=None)
    page = render_audit(bare)
    assert page.count("<svg") == 1
    assert "not applicable" in page
