"""Metrics and labels of a run from recipe to report: in clear, noised, or off."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from small import NOISED, recipe, recorded, report, run, stopped

from fedtl.apps.client import make_client_app
from fedtl.errors import RecipeError
from fedtl.launch.federation import Sites, build
from fedtl.launch.ledgers import ledger_file, ledgers_in
from fedtl.launch.plans import cautions, plan_of
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent
from fedtl.privacy.ledger import Budget, Ledger, RequestKey
from fedtl.report.html import render_page
from fedtl.site.site import Site
from fedtl.train.counts import METRICS_NORM
from fedtl.transport.local import LocalGrid
from fedtl.wire.messages import EVALUATE


@pytest.mark.parametrize(
    ("rounds", "every", "count"), [(2, 1, 2), (5, 2, 3), (6, 2, 3), (5, 0, 1), (3, 9, 1)]
)
def test_the_plan_covers_the_evaluations_of_the_run_and_no_more(
    rounds: int, every: int, count: int
) -> None:
    chosen = recipe(train__rounds=rounds, evaluate_every=every, **NOISED)
    plan = plan_of(chosen, mean_size=50.0, sites=3)
    assert plan is not None
    metrics = plan.release("metrics")
    assert (metrics.count, metrics.clip_norm, metrics.unit) == (count, METRICS_NORM, "example")
    # held-out records are others than those trained on: both have the whole budget
    plain = plan_of(recipe(train__rounds=rounds), mean_size=50.0, sites=3)
    assert plain is not None
    assert plan.release("gradients") == plain.release("gradients")
    assert plan.epsilon_after() == pytest.approx(8.0, abs=1e-6)
    assert plan.epsilon_after(held_out=True) == pytest.approx(8.0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"privacy__metrics": "noised", "privacy__enabled": False}, "no plan says how much"),
        ({"privacy__labels": "noised", "privacy__enabled": False}, "no plan says how much"),
        (
            {
                **{"privacy__labels": "noised", "privacy__model": "distributed"},
                **{"transport__secure": True, "train__local_steps": 1},
            },
            "told by each site for itself",
        ),
    ],
)
def test_noise_that_nothing_covers_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(RecipeError, match=match) as error:
        recipe(**changes)
    assert error.value.next_step


def test_in_clear_everything_is_as_exact_as_it_was(tmp_path: Path) -> None:
    chosen = recipe(partition__kind="iid")
    grid = recorded(chosen)
    result = run(tmp_path, chosen, grid=grid).result
    federation = build(chosen)
    assert np.sum(result.confusion) == sum(len(rows.test) for rows in federation.rows)
    assert {r.content["metrics"]["releases"] for r in grid.of(EVALUATE)} == {0}
    assert "shown without noise" in result.guarantee
    assert (result.metrics, result.labels) == ("clear", "clear")
    assert all(s.epsilon_held_out == 0 for s in result.sites)


def test_noised_metrics_end_to_end(tmp_path: Path) -> None:
    """Nothing that a site answers holds a true number of its results."""
    chosen = recipe(**NOISED, train__rounds=3, evaluate_every=2)
    grid = recorded(chosen)
    result = run(tmp_path / "noised", chosen, grid=grid).result
    clear = recipe(partition__kind="iid", train__rounds=3, evaluate_every=2)
    in_clear = recorded(clear)
    exact = run(tmp_path / "clear", clear, grid=in_clear).result
    replies = grid.of(EVALUATE)
    for ours, true in zip(replies, in_clear.of(EVALUATE), strict=True):
        told, known = (dict(reply.content["metrics"].items()) for reply in (ours, true))
        assert all(told[key] != known[key] for key in ("wrong", "right", "losses"))
    assert len(replies) == 2 * 3
    for reply in replies:
        told = dict(reply.content["metrics"].items())
        last = "confusion" in told
        assert told["releases"] == (2 if last else 1)
        for value in (told["wrong"], told["right"], told["num-examples"]):
            assert value != round(value) or value == 1.0
    assert sum("confusion" in r.content["metrics"] for r in replies) == 3
    assert all(0 <= a <= 1 for r in result.history for a in r.site_accuracy.values())
    assert [r.accuracy is None for r in result.history] == [True, False, False]
    assert np.array(result.confusion).shape == (10, 10)
    assert np.array(result.confusion).min() >= 0
    assert result.confusion != exact.confusion
    # the noise is on what is told, and changes nothing of what is trained
    assert [s.epsilon for s in result.sites] == [s.epsilon for s in exact.sites]
    assert [s.epsilon_held_out for s in result.sites] == pytest.approx([8.0] * 3, abs=1e-6)
    assert "noised counts" in result.guarantee
    assert "without noise" not in result.guarantee
    with (tmp_path / "noised/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(r["held_out"]) for r in rows] == [False] * 3 + [True] * 6
    assert all(0 <= float(r["accuracy"]) <= 1 for r in rows if r["accuracy"])


def test_the_noised_accuracy_of_many_examples_is_near_the_true_one(tmp_path: Path) -> None:
    """Sums over sites are made before anything is cut off, so noise does not add up to a bias."""
    changes = {"data__limit": 1200, "train__rounds": 3, "evaluate_every": 0}
    exact = run(tmp_path / "clear", recipe(partition__kind="iid", **changes)).result
    noised = run(tmp_path / "noised", recipe(**NOISED, **changes)).result
    assert exact.accuracy is not None
    assert noised.accuracy == pytest.approx(exact.accuracy, abs=0.04)
    assert noised.history[-1].loss == pytest.approx(exact.history[-1].loss, abs=0.3)


@pytest.mark.parametrize("changes", [NOISED, NOISED | {"privacy__labels": "noised"}])
def test_a_resumed_run_tells_what_an_uninterrupted_one_tells(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """To the byte: history with its floats, report, ledgers; nobody is asked for labels again."""
    chosen = recipe(**changes, train__rounds=4)
    whole = run(tmp_path / "whole", chosen)
    stopped(tmp_path / "part", chosen, 2)
    resumed = run(tmp_path / "part", chosen)
    assert report(tmp_path / "part") == report(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.head["weight"], whole.head["weight"])
    for name in ("history.csv", *(["checkpoint/labels.json"] if len(changes) > 2 else [])):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for site, file in ledgers_in(tmp_path / "part").items():
        with (
            Ledger.open(file, read_only=True) as part,
            Ledger.open(ledger_file(tmp_path / "whole", site), read_only=True) as whole,
        ):
            ours, theirs = (
                [(e.request, e.dataset, e.event) for e in one.entries()] for one in (part, whole)
            )
            assert ours == theirs


def test_noised_numbers_are_the_same_on_local_and_stacked(tmp_path: Path) -> None:
    chosen = NOISED | {"privacy__labels": "noised"}
    stacked = run(tmp_path / "stacked", recipe(**chosen)).result
    other = run(tmp_path / "local", recipe(**chosen, transport__via="local")).result
    assert other.accuracy == stacked.accuracy
    assert other.confusion == stacked.confusion
    assert [s.labels for s in other.sites] == [s.labels for s in stacked.sites]
    assert [s.accuracy for s in other.sites] == [s.accuracy for s in stacked.sites]


def test_the_ledgers_say_what_held_out_and_trained_records_have_spent(tmp_path: Path) -> None:
    chosen = recipe(**NOISED, privacy__labels="noised", privacy__epsilon=3.0)
    result = run(tmp_path, chosen).result
    federation = build(chosen)
    for rows, site in zip(federation.rows, result.sites, strict=True):
        with Ledger.open(ledger_file(tmp_path, site.name), read_only=True) as ledger:
            by_size = {len(data): data for data in ledger.datasets()}
            assert set(by_size) == {len(rows.train), len(rows.test)}
            spent = [
                epsilon_of(ledger.spend(by_size[len(part)]), chosen.privacy.delta)
                for part in (rows.train, rows.test)
            ]
        assert spent == pytest.approx([site.epsilon, site.epsilon_held_out], rel=1e-9)
        assert spent == pytest.approx([3.0, 3.0], abs=1e-6)


@pytest.mark.parametrize("what", ["held_out_dataset", "dataset"])
def test_a_site_that_refuses_to_tell_costs_the_run_nothing(tmp_path: Path, what: str) -> None:
    """Records whose budget was spent by an earlier run: the others go on, the report says why."""
    chosen = recipe(**NOISED, privacy__labels="noised")
    federation = build(chosen)
    site_of = Sites.of(federation, {}, tmp_path)
    name = federation.names[1]

    def spent(context: Context) -> Site:
        site = site_of(context)
        if site.name == name and site.rules.budget is None:
            earlier = RequestKey("an earlier run", 1, "train", name)
            assert site.ledger is not None
            site.ledger.charge(earlier, getattr(site, what), GaussianEvent(0.6))
            budget = Budget(8.001, chosen.privacy.delta)
            site.policy = replace(site.rules, budget=budget)
        return site

    app = make_client_app(spent)
    result = run(tmp_path, chosen, grid=LocalGrid(app, federation.names)).result
    site_of.close()
    told = result.sites[1]
    assert result.accuracy is not None
    if what == "dataset":
        assert told.failures == {"privacy.budget": 2}
        assert told.labels == []
        assert any(f"{name} (privacy.budget)" in note for note in result.notes)
        assert told.accuracy is not None
    else:
        assert [dict(r.unevaluated) for r in result.history] == [{name: "privacy.budget"}] * 2
        assert (told.accuracy, told.epsilon_held_out, told.failures) == (None, 0.0, {})
        assert told.epsilon > 7
        assert "privacy.budget" in render_page(result)


def test_off_sends_no_evaluation_at_all(tmp_path: Path) -> None:
    chosen = recipe(privacy__metrics="off")
    grid = recorded(chosen)
    finished = run(tmp_path, chosen, grid=grid)
    assert not grid.of(EVALUATE)
    assert (finished.result.accuracy, finished.result.confusion) == (None, [])
    assert "not evaluated (privacy.metrics = off)" in finished.result.guarantee
    clear = run(tmp_path / "clear", recipe())
    np.testing.assert_array_equal(finished.head["weight"], clear.head["weight"])
    assert (tmp_path / "module").is_dir()


def test_small_numbers_are_not_shown_in_a_private_run(tmp_path: Path) -> None:
    changes = {"data__limit": 60, "partition__kind": "iid", "compare__local_only": True}
    hidden = run(tmp_path / "hidden", recipe(**changes, privacy__suppress_below=6)).result
    shown = run(tmp_path / "shown", recipe(**changes, privacy__suppress_below=0)).result
    plain = run(tmp_path / "plain", recipe(**changes, privacy__enabled=False)).result
    for ours, all_of_it in zip(hidden.sites, shown.sites, strict=True):
        assert ours.labels == [n if (n or 0) >= 6 else None for n in all_of_it.labels]
        assert (ours.accuracy is None) == (ours.test < 6)
        assert (ours.local_own is None) == (ours.test < 6)
        assert all_of_it.accuracy is not None
    assert any(s.accuracy is None for s in hidden.sites)
    few = sum(s.test < 6 for s in hidden.sites)
    assert any(f"{few} site" in note and "told no result" in note for note in hidden.notes)
    assert not any("told no result" in note for note in shown.notes)
    assert all(None not in s.labels for s in plain.sites)
    saved = (tmp_path / "hidden/history.csv").read_text()
    assert saved.count(",,,") > 0


def test_records_that_are_trained_on_and_held_out_are_counted_before_the_run() -> None:
    """They have no budget of their own for metrics, whatever the guarantee says of the others."""
    chosen = recipe(**NOISED)
    federation = build(chosen)
    manifest = federation.manifest
    assert cautions(chosen, manifest, federation.rows) == []
    digests = manifest.digests.copy()
    digests[np.flatnonzero(manifest.test)[:2]] = digests[np.flatnonzero(~manifest.test)[:2]]
    (said,) = cautions(chosen, replace(manifest, digests=digests), federation.rows)
    assert said.startswith("2 records are trained on and held out as well")
