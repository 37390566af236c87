"""The main job as a user gets it: same recipe, same seed, the same head, however it is run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtl.data import open_data, partition
from fedtl.errors import FedtlError
from fedtl.launch.ledgers import ledgers_in
from fedtl.launch.simulate import Finished, simulate
from fedtl.modules import load_module
from fedtl.privacy.events import Event
from fedtl.privacy.ledger import Ledger
from fedtl.recipe import load_recipe

SMALL: dict[str, Any] = {
    "partition.sites": 3,
    "train.rounds": 3,
    "train.local_steps": 2,
    "compare.local_only": False,
    "compare.without_privacy": False,
}


def run(folder: Path, **settings: Any) -> Finished:
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return simulate(load_recipe(None, {**SMALL, **changes}), folder, html=False)


def head(finished: Finished) -> np.ndarray[Any, Any]:
    return np.asarray(finished.head["weight"])


def spent(folder: Path) -> dict[str, tuple[int, Event]]:
    """Return each site's entries and composed event, from its ledger."""
    found = {}
    for site, file in ledgers_in(folder).items():
        with Ledger.open(file, read_only=True) as ledger:
            (data,) = ledger.datasets()
            found[site] = (ledger.verify().entries, ledger.spend(data))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train__sampling": "poisson", "train__batch_size": 40},
        {"privacy__enabled": False, "train__sampling": "shuffle", "train__momentum": 0.9},
        {"strategy__name": "fed3r"},
        {"strategy__name": "fedadam", "transport__dropout": 0.4},
    ],
    ids=["full batch", "poisson", "not private", "fed3r", "fedadam, dropouts"],
)
def test_local_and_stacked_give_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    one = run(tmp_path / "a", transport__via="local", **settings)
    all_ = run(tmp_path / "b", transport__via="stacked", **settings)
    assert np.array_equal(head(one), head(all_))
    assert np.abs(head(one)).sum() > 0
    assert one.result.accuracy == all_.result.accuracy


def test_flowers_own_runtime_gives_the_same_head(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra fedtl[ray] is not installed")
    here = run(tmp_path / "a")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(load_recipe(None, {**SMALL, "transport.via": "ray"}).to_toml())
    command = [sys.executable, "-m", "fedtl", "simulate", str(recipe), "-q", "--out"]
    subprocess.run([*command, str(tmp_path / "b")], check=True, timeout=300)
    there = load_module(tmp_path / "b/module").head["weight"]
    assert spent(tmp_path / "b") == spent(tmp_path / "a")  # by ledgers of worker processes
    assert np.abs(head(here) - there).max() <= 1e-6 * np.abs(there).max()


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_stopped_run_ends_with_the_head_of_an_uninterrupted_one(
    strategy: str, tmp_path: Path
) -> None:
    recipe = load_recipe(None, {**SMALL, "strategy.name": strategy, "train.rounds": 4})
    whole = simulate(recipe, tmp_path / "whole", html=False)

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "rounds" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(recipe, tmp_path / "part", html=False, progress=stop)
    assert json.loads((tmp_path / "part/report.json").read_text())["status"] == "stopped"
    resumed = simulate(recipe, tmp_path / "part", html=False)
    assert np.array_equal(head(whole), head(resumed))
    assert [s.epsilon for s in resumed.result.sites] == [s.epsilon for s in whole.result.sites]
    assert resumed.result.sites[0].epsilon == pytest.approx(8, abs=1e-6)


def test_fed3r_is_the_pooled_solution_for_any_split(tmp_path: Path) -> None:
    heads = [
        head(
            run(
                tmp_path / str(at),
                strategy__name="fed3r",
                privacy__enabled=False,
                partition__kind=kind,
                partition__alpha=alpha,
                partition__sites=sites,
            )
        )
        for at, (kind, alpha, sites) in enumerate(
            [("iid", 1.0, 1), ("dirichlet", 0.01, 5), ("dirichlet", 1.0, 4), ("iid", 1.0, 7)]
        )
    ]
    for other in heads[1:]:
        assert np.abs(other - heads[0]).max() <= 2e-6 * np.abs(heads[0]).max()  # float32 heads


def test_a_run_folder_holds_what_the_readme_says(tmp_path: Path) -> None:
    finished = simulate(load_recipe(None, SMALL), tmp_path / "run")
    for name in ("recipe.toml", "report.html", "report.json", "history.csv"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    module = load_module(tmp_path / "run/module")
    digits = open_data("digits")
    chosen = np.flatnonzero(digits.test)[:60]
    answers = module.predict([digits.source.read(int(row)) for row in chosen])
    right = [
        a.label == digits.classes[digits.labels[r]] for a, r in zip(answers, chosen, strict=True)
    ]
    assert np.mean(right) > 0.5
    assert sum(np.array(finished.result.confusion).ravel()) == digits.test.sum()


def test_a_run_folder_of_another_recipe_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path / "run")
    before = (tmp_path / "run/report.json").read_bytes()
    with pytest.raises(FedtlError, match="belongs to another recipe"):
        run(tmp_path / "run", seed=2)
    assert (tmp_path / "run/report.json").read_bytes() == before


def test_the_backbone_on_disk_does_not_move_by_a_bit_in_a_private_run(tmp_path: Path) -> None:
    from fedtl.backbone import resolve, store

    card = resolve("tf_efficientnet_lite0", image_size=64)
    before = store.get(card.sha256)
    run(tmp_path / "run", backbone__engine="reference")
    assert store.get(card.sha256) == before


def test_every_example_is_at_exactly_one_site() -> None:
    digits = open_data("digits")
    cut = partition(digits.labels, digits.test, kind="dirichlet", sites=5, seed=1, min_examples=10)
    rows = np.concatenate([part for site in cut for part in (site.train, site.test)])
    assert sorted(rows) == list(range(len(digits)))
