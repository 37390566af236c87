"""Counts of labels: asked for once, noised, kept, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small import recipe, recorded, report, run, stopped

from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError, PrivacyError
from fedtl.launch.federation import Sites, build
from fedtl.launch.plans import LABELS_SHARE, plan_of
from fedtl.rounds.labels import ask_labels
from fedtl.rounds.sites import describe_sites
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.wire.messages import LABELS, task_config


def test_labels_get_a_small_share_of_the_budget() -> None:
    for name in ("fedavg", "fed3r", "fedwhiten"):
        chosen = recipe(strategy__name=name, privacy__labels="noised", train__rounds=4)
        plan = plan_of(chosen, mean_size=50.0, sites=3)
        assert plan is not None
        assert plan.epsilon_after() == pytest.approx(8.0, abs=1e-6)
        mu = {r.mechanism: r.count / r.noise_multiplier**2 for r in plan.releases}
        assert mu["labels"] / sum(mu.values()) == pytest.approx(LABELS_SHARE)
        assert plan.release("labels").clip_norm == 1.0
    with pytest.raises(PrivacyError, match="split over"):
        plan_of(
            recipe(privacy__labels="noised", privacy__noise_multiplier=9.0), mean_size=50.0, sites=3
        )


def test_noised_labels_are_asked_once_and_stand_in_the_report(tmp_path: Path) -> None:
    chosen = recipe(privacy__labels="noised", partition__kind="iid", privacy__epsilon=50.0)
    grid = recorded(chosen)
    result = run(tmp_path, chosen, grid=grid).result
    assert len(grid.of(LABELS)) == 3
    federation = build(chosen)
    for rows, site in zip(federation.rows, result.sites, strict=True):
        true = np.bincount(federation.manifest.labels[rows.train], minlength=10)
        assert site.labels != true.tolist()
        assert np.abs(np.array(site.labels) - true).max() < 12  # but near enough to be of use
    assert result.labels == "noised"
    assert "Counts of labels carry noise" in result.guarantee
    again = recorded(chosen)
    run(tmp_path, chosen, grid=again)
    assert not again.__dict__.get("replies")


def test_labels_that_were_lost_are_spent_and_are_not_asked_for_again(tmp_path: Path) -> None:
    chosen = recipe(privacy__labels="noised", transport__dropout=0.5, partition__kind="iid", seed=3)
    run(tmp_path / "whole", chosen)
    kept = json.loads((tmp_path / "whole/checkpoint/labels.json").read_text())
    assert set(kept["failures"].values()) == {"reply.missing"}
    stopped(tmp_path / "part", chosen, 1)
    run(tmp_path / "part", chosen)
    assert report(tmp_path / "part") == report(tmp_path / "whole")


@pytest.mark.parametrize("damage", [b"{}", b"", b'{"counts": [], "failures": {}}', b"\xff"])
def test_damaged_labels_are_refused(tmp_path: Path, damage: bytes) -> None:
    chosen = recipe(privacy__labels="noised", train__rounds=3)
    stopped(tmp_path, chosen, 1)
    (tmp_path / "checkpoint/labels.json").write_bytes(damage)
    with pytest.raises(CacheError, match="counts of labels") as error:
        run(tmp_path, chosen)
    assert error.value.next_step


def test_counts_of_another_number_of_classes_are_left_out() -> None:
    federation = build(recipe())
    site_of = Sites.of(federation, {})
    grid = LocalGrid(make_client_app(site_of), federation.names)
    sites = {node: d.name for node, d in describe_sites(grid).items()}
    config = task_config(TrainTask(1), None)
    counts, failures = ask_labels(grid, sites=sites, config=config, classes=10)
    assert sum(told.sum() for told in counts.values()) == 160
    assert not failures
    counts, failures = ask_labels(grid, sites=sites, config=config, classes=9)
    assert not counts
    assert set(failures.values()) == {"update.shape"}
