"""Runs from recipe to run folder, held by tests."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import recipe, run, stopped

from fedtl.errors import CacheError, PrivacyError, RecipeError
from fedtl.launch.federation import build
from fedtl.launch.history import Entry, Tally
from fedtl.launch.plans import FEATURE_NORM, cautions, plan_of
from fedtl.launch.run_folder import new_folder, recipe_of
from fedtl.privacy.ledger import Ledger
from fedtl.rounds import RoundRecord
from fedtl.train.task import TrainTask


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """Both would write the checkpoint, and releases would be counted once that were made twice."""
    again: list[str] = []

    def intrude(phase: str, done: int, total: int) -> None:
        if phase == "rounds" and done == 1:
            with pytest.raises(CacheError, match="Another process works in") as error:
                run(tmp_path)
            again.append(error.value.code)

    finished = run(tmp_path, progress=intrude)
    assert again == ["folder.busy"]
    assert not (tmp_path / ".lock").exists()
    assert run(tmp_path).head.keys() == finished.head.keys()


def test_every_round_and_site_is_a_row_of_the_history(tmp_path: Path) -> None:
    finished = run(tmp_path, recipe(transport__dropout=0.4, train__rounds=4))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("round", "site", "held_out", "accuracy", "loss"),
        *("releases", "failure", "down", "up"),
    ]
    assert [(int(r["round"]), r["site"]) for r in rows] == [
        (round_, site.name) for round_ in (1, 2, 3, 4) for site in finished.result.sites
    ]
    lost = [r for r in rows if r["failure"]]
    assert {r["failure"] for r in lost} == {"reply.missing"}
    assert all(r["releases"] == "" for r in lost)
    assert all(int(r["down"]) > 0 for r in rows)
    by_site = {s.name: s.failures.get("reply.missing", 0) for s in finished.result.sites}
    assert by_site == {n: sum(r["site"] == n for r in lost) for n in by_site}


def test_what_was_lost_on_the_way_was_spent_all_the_same(tmp_path: Path) -> None:
    """Also by a run that was stopped right after the loss, and resumed."""
    chosen = recipe(transport__dropout=0.4, train__rounds=5)
    whole = run(tmp_path / "whole", chosen).result
    assert any(s.failures for s in whole.sites)
    assert [s.epsilon for s in whole.sites] == pytest.approx([8.0] * 3, abs=1e-6)
    for after in (1, 2, 3, 4):
        stopped(tmp_path / str(after), chosen, after)
        resumed = run(tmp_path / str(after), chosen)
        assert [s.epsilon for s in resumed.result.sites] == [s.epsilon for s in whole.sites]
        before = [h.epsilon for h in whole.history]
        assert [h.epsilon for h in resumed.result.history] == before


def record(round_: int, failures: dict[str, str], releases: dict[str, int]) -> Entry:
    return Entry(
        RoundRecord(round_, ("a", "b"), failures, "gradients", releases, {}, {}, 0, 0, 0), {}, {}
    )


def test_only_failures_at_the_site_cost_nothing() -> None:
    entries = [
        record(1, {"b": "reply.missing"}, {"a": 3}),
        record(2, {"b": "update.not-finite"}, {"a": 6}),
        record(3, {"b": "data.unreadable"}, {"a": 9}),
    ]
    counted = Tally.of(entries, {"gradients": 3}).counts
    assert counted == {"a": {"gradients": 9}, "b": {"gradients": 6}}
    entries.append(record(4, {}, {"a": 12, "b": 9}))  # the site's own count wins
    counted = Tally.of(entries, {"gradients": 3}).counts
    assert counted == {"a": {"gradients": 12}, "b": {"gradients": 9}}


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.safetensors", lambda b: b[:-7]),
        ("state.safetensors", lambda b: b"\x00" * 40),
        ("history.jsonl", lambda b: b[: len(b) // 2]),
        ("history.jsonl", lambda b: b""),
        ("history.jsonl", lambda b: b.replace(b'"round": 1', b'"round": 7')),
        ("history.jsonl", lambda b: b'{"surprise": 1}\n'),
        ("history.jsonl", lambda b: b"[1]\n"),
        ("history.jsonl", lambda b: b"\xff\xfe\n"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, file: str, damage: Any) -> None:
    """A run that forgot its history would spend its budget twice."""
    chosen = recipe(train__rounds=3)
    stopped(tmp_path, chosen, 1)
    path = tmp_path / "checkpoint" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CacheError, match="damaged") as error:
        run(tmp_path, chosen)
    assert file in error.value.problem
    assert error.value.next_step


def test_a_checkpoint_without_its_history_is_refused(tmp_path: Path) -> None:
    chosen = recipe(train__rounds=3)
    stopped(tmp_path, chosen, 1)
    (tmp_path / "checkpoint/history.jsonl").unlink()
    with pytest.raises(CacheError, match="damaged or missing"):
        run(tmp_path, chosen)


def test_a_round_whose_checkpoint_was_never_written_is_done_again(tmp_path: Path) -> None:
    """The history is written first; a process that dies in between leaves one line too many."""
    chosen = recipe(train__rounds=3)
    whole = run(tmp_path / "whole", chosen)
    stopped(tmp_path / "part", chosen, 1)
    history = tmp_path / "part/checkpoint/history.jsonl"
    line = history.read_text().replace('"round": 1', '"round": 2')
    history.write_text(history.read_text() + line)
    resumed = run(tmp_path / "part", chosen)
    np.testing.assert_array_equal(resumed.head["weight"], whole.head["weight"])
    assert len(resumed.result.history) == 3


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, again = run(tmp_path), run(tmp_path)
    np.testing.assert_array_equal(first.head["weight"], again.head["weight"])
    assert [h.epsilon for h in again.result.history] == [h.epsilon for h in first.result.history]


@pytest.mark.parametrize(
    "changes",
    [
        {"head__kind": "mlp", "train__lr": 1.0},
        {"head__kind": "mlp", "train__sampling": "poisson", "train__schedule": "cosine"},
        {"head__kind": "mlp", "privacy__enabled": False, "train__momentum": 0.5},
    ],
    ids=["private", "poisson", "plain"],
)
def test_mlp_heads_run_alike_on_local_and_stacked(changes: dict[str, Any], tmp_path: Path) -> None:
    heads = [
        run(tmp_path / via, recipe(transport__via=via, head__hidden=8, **changes)).head
        for via in ("local", "stacked")
    ]
    for key in heads[0]:
        np.testing.assert_array_equal(heads[0][key], heads[1][key])
    start = run(tmp_path / "again", recipe(head__hidden=8, **changes)).result
    assert start.accuracy is not None


def test_statistics_go_with_linear_heads_only(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'fed3r' makes linear heads") as error:
        run(tmp_path, recipe(strategy__name="fed3r", head__kind="mlp"))
    assert error.value.next_step


def test_a_strategy_of_ones_own_file_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from flwr.serverapp.strategy import FedAvg\n"
        "class Mine(FedAvg):\n    def __init__(self, min_train_nodes: int = 1) -> None:\n"
        "        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)\n"
    )
    own = run(tmp_path / "own", recipe(strategy__name=f"{file}:Mine"))
    known = run(tmp_path / "known")
    np.testing.assert_array_equal(own.head["weight"], known.head["weight"])
    assert run(tmp_path / "own", recipe_of(tmp_path / "own")).result.strategy == f"{file}:Mine"


def test_the_plan_is_made_for_the_whole_run_by_public_numbers_alone() -> None:
    chosen = recipe(train__sampling="poisson", train__batch_size=20, privacy__public_size=100)
    plan = plan_of(chosen, mean_size=55.0, sites=4)
    assert plan is not None
    (release,) = plan.releases
    assert (release.count, release.sampling_rate, release.public_size) == (4, 0.2, 100.0)
    assert plan.epsilon_after() <= 8.0
    large = recipe(train__sampling="poisson", train__batch_size=99)
    small = plan_of(large, mean_size=55.0, sites=4)
    assert small is not None
    assert small.releases[0].sampling_rate == 1.0
    statistics = plan_of(recipe(strategy__name="fed3r"), mean_size=55.0, sites=4)
    assert statistics is not None
    assert [(r.mechanism, r.count) for r in statistics.releases] == [("statistics", 1)]
    assert plan_of(recipe(privacy__enabled=False), mean_size=55.0, sites=4) is None
    assert TrainTask.of(chosen).sampling == "poisson"


def test_batches_larger_than_a_site_still_run(tmp_path: Path) -> None:
    finished = run(tmp_path, recipe(train__sampling="poisson", train__batch_size=500))
    assert finished.result.accuracy is not None


def test_no_prepared_row_is_longer_than_the_statistics_assume() -> None:
    federation = build(recipe())
    lengths = federation.x.norm(dim=1)
    assert float(lengths.max()) <= FEATURE_NORM + 1e-6
    assert bool(torch.isfinite(lengths).all())


def test_folders_are_new_and_others_are_no_run_folders(tmp_path: Path) -> None:
    first = new_folder(recipe(), tmp_path)
    first.mkdir()
    assert new_folder(recipe(), tmp_path) != first
    with pytest.raises(CacheError, match="is not a run folder"):
        recipe_of(tmp_path)


def test_reports_say_that_a_simulation_guarantees_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["guarantee"].startswith("No guarantee")
    assert "(8, 1e-05)-DP per example at each site" in report["plan"]


def test_patients_are_protected_as_a_whole_where_the_recipe_says_so(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:160] * 15).astype(np.uint8)
    patients = np.array([f"patient-{at // 4}" for at in range(160)])
    np.savez(tmp_path / "ward.npz", x=images, y=digits.target[:160], group=patients)
    changes = {"data__source": str(tmp_path / "ward.npz"), "data__limit": 0}
    chosen = recipe(**changes, privacy__unit="group", partition__kind="group")
    result = run(tmp_path / "run", chosen).result
    assert "per group" in result.plan
    with Ledger.open(tmp_path / "run" / "sites" / result.sites[0].name / "ledger.sqlite") as ledger:
        assert {dataset.unit for dataset in ledger.datasets()} == {"group"}
    sizes = [site.train for site in result.sites]
    federation = build(chosen)
    plan = federation.plan()
    assert plan is not None
    assert plan.releases[0].public_size < np.mean(sizes) / 2
    capped = recipe(**changes, privacy__unit="group", privacy__unit_cap=2, partition__kind="group")
    notes = run(tmp_path / "capped", capped).result.notes
    assert any("groups have more than privacy.unit_cap = 2 training" in note for note in notes)
    without = recipe(**changes, partition__kind="group")
    other = run(tmp_path / "examples", without)
    assert "per example" in other.result.plan
    with pytest.raises(PrivacyError, match="has no groups"):
        run(tmp_path / "digits", recipe(privacy__unit="group"))


def test_a_delta_that_allows_to_publish_somebody_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "fedtl.launch"):
        result = run(tmp_path / "loose", recipe(privacy__delta=0.0099, partition__sites=1)).result
    assert "privacy.delta = 0.0099 is not below 1 / " in caplog.text
    assert any("privacy.delta" in note for note in result.notes)
    quiet = run(tmp_path / "usual", recipe()).result
    assert not any("privacy.delta" in note for note in quiet.notes)


def test_rounds_that_leave_none_for_gradients_are_refused() -> None:
    with pytest.raises(PrivacyError, match=r"needs 2 of them for sums") as error:
        plan_of(recipe(strategy__name="fedwhiten", train__rounds=2), mean_size=55.0, sites=4)
    assert "at least 3" in error.value.next_step


def test_who_asks_the_sites_once_is_told_whom_he_leaves_out() -> None:
    """A head in closed form from five of twenty sites looks like a bad method."""
    some = recipe(strategy__name="fed3r", train__sites_per_round=2, privacy__enabled=False)
    federation = build(some)
    (said,) = cautions(some, federation.manifest, federation.rows)
    assert "sites_per_round = 2 leaves 1 of 3 sites out" in said
    for other in ({"train__sites_per_round": 0}, {"strategy__name": "fedavg"}):
        changed = recipe(
            **{
                "strategy__name": "fed3r",
                "train__sites_per_round": 2,
                "privacy__enabled": False,
                **other,
            }
        )
        assert cautions(changed, federation.manifest, federation.rows) == []
