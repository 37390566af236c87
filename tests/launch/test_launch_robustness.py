"""Attacks and defences from recipe to table, on real features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import recipe, run, stopped

from fedtl.errors import RecipeError, StrategyError
from fedtl.launch.attacks import attacked, learned_labels
from fedtl.launch.compare import compare
from fedtl.launch.federate import check_deployable
from fedtl.launch.federation import Federation, Sites, build
from fedtl.launch.progress import silent
from fedtl.launch.robustness import ATTACKS, DEFENCES, Row, robustness, write_root
from fedtl.recipe import Recipe, load_recipe
from fedtl.strategies import make_strategy
from fedtl.transport.attacks import AttackedGrid, bad_sites

TEN: dict[str, Any] = {
    "partition__sites": 10,
    "partition__kind": "iid",
    "partition__min_examples": 1,
    "train__rounds": 6,
    "train__local_steps": 4,
    "privacy__enabled": False,
    "privacy__suppress_below": 0,
}


@pytest.fixture(scope="module")
def ten(shared_home: Path) -> Federation:
    return build(recipe(**TEN))


def test_the_table_has_a_row_for_each_attack_share_and_defence(
    ten: Federation, tmp_path: Path
) -> None:
    root = write_root(ten, tmp_path / "root.npz", size=40)
    defences = {
        **{name: DEFENCES[name] for name in ("average", "median", "RFA", "NNM + median")},
        "FLTrust": {"name": "fltrust", "options": {"root": str(root)}},
    }
    rows = robustness(ten, attacks=["sign_flip"], shares=[0.3], defences=defences)
    assert [(r.attack, r.share) for r in rows[::5]] == [("none", 0.0), ("sign_flip", 0.3)]
    assert [r.defence for r in rows] == list(defences) * 2
    assert all(len(r.by_round) == 6 and r.accuracy == r.by_round[-1] for r in rows)
    found = {(r.share, r.defence): r.accuracy for r in rows}
    assert min(found[0.0, name] for name in defences) > 0.7
    assert found[0.3, "average"] < 0.2
    for name in ("median", "RFA", "NNM + median", "FLTrust"):
        assert found[0.3, name] > 0.5, (name, found)
    (again,) = robustness(ten, attacks=[], defences={"RFA": defences["RFA"]})
    assert again == rows[2]


@pytest.mark.parametrize("kind", ATTACKS)
def test_every_attack_changes_what_an_average_becomes(ten: Federation, kind: str) -> None:
    defence = {"average": DEFENCES["average"]}
    plain, hurt = robustness(ten, attacks=[kind], shares=[0.4], defences=defence)
    assert isinstance(hurt, Row)
    assert hurt.by_round != plain.by_round


def test_a_table_of_nothing_known_is_refused(ten: Federation) -> None:
    few = {"average": DEFENCES["average"]}
    with pytest.raises(RecipeError, match="sing_flip"):
        robustness(ten, attacks=["sing_flip"], shares=[0.2], defences=few)
    with pytest.raises(RecipeError, match=r"attack\.share = 0\.05 of 10 sites"):
        robustness(ten, attacks=["ipm"], shares=[0.05], defences=few)
    with pytest.raises(StrategyError, match="'medain' is unknown"):
        robustness(ten, attacks=["ipm"], defences={"a": {"name": "medain"}})


def test_a_root_set_is_of_training_examples(ten: Federation, tmp_path: Path) -> None:
    file = np.load(write_root(ten, tmp_path / "root.npz", size=30))
    held_out = {ten.site(at).examples[1].x[i].numpy().tobytes() for at in range(10) for i in (0, 1)}
    assert file["x"].shape == (30, ten.width)
    assert not held_out & {row.tobytes() for row in file["x"]}
    assert set(file["y"]) <= set(range(10))
    with pytest.raises(RecipeError, match="size = 999"):
        write_root(ten, tmp_path / "root.npz", size=999)


def flipped(**changes: Any) -> Recipe:
    return recipe(**TEN, attack__kind="label_flip", attack__share=0.3, **changes)


def test_bad_sites_learn_from_flipped_labels_and_are_tested_on_true_ones(ten: Federation) -> None:
    chosen = flipped()
    bad = bad_sites(ten.names, share=0.3, seed=chosen.seed)
    poisoned = replace(ten, recipe=chosen)
    site_of = Sites.of(poisoned, {})
    before = ten.y.clone()
    for at, name in enumerate(ten.names):
        context = type("Context", (), {"node_config": {"partition-id": at}})()
        (x, test), (true, held_out) = site_of(context).examples, ten.site(at).examples
        expected = 9 - true.y if name in bad else true.y
        assert torch.equal(x.y, expected)
        assert torch.equal(test.y, held_out.y)
    assert torch.equal(ten.y, before)
    assert learned_labels(recipe(**TEN), ten.y, ten.rows, 10) is ten.y
    assert attacked(chosen, "grid", {}) == "grid"  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize("kind", ["sign_flip", "label_flip"])
def test_an_attacked_run_ends_alike_on_every_grid_and_when_it_is_resumed(
    tmp_path: Path, kind: str
) -> None:
    changes = {**TEN, "train__rounds": 3, "attack__kind": kind, "attack__share": 0.3}
    whole = run(tmp_path / "whole", recipe(**changes))
    other = run(tmp_path / "local", recipe(**changes, transport__via="local"))
    stopped(tmp_path / "part", recipe(**changes), 1)
    resumed = run(tmp_path / "part", recipe(**changes))
    for one in (other, resumed):
        np.testing.assert_array_equal(one.head["weight"], whole.head["weight"])  # type: ignore[arg-type]
    honest = run(tmp_path / "honest", recipe(**{**changes, "attack__kind": "none"}))
    assert np.any(honest.head["weight"] != whole.head["weight"])  # type: ignore[operator]


def test_a_private_attacked_run_pays_like_any_other(tmp_path: Path) -> None:
    changes = {**TEN, "privacy__enabled": True, "train__rounds": 2}
    spent = []
    for kind in ("none", "sign_flip", "label_flip"):
        finished = run(tmp_path / kind, recipe(**changes, attack__kind=kind))
        spent.append([site.epsilon for site in finished.result.sites])
    assert spent[0] == spent[1] == spent[2]
    assert all(epsilon == pytest.approx(8.0, rel=1e-6) for epsilon in spent[0])


def test_the_comparison_without_privacy_is_attacked_too(tmp_path: Path) -> None:
    changes = {**TEN, "privacy__enabled": True, "compare__without_privacy": True}
    with_attack, without = (
        compare(build(recipe(**changes, **more)), silent).without_privacy
        for more in ({"attack__kind": "sign_flip", "attack__share": 0.4}, {})
    )
    assert with_attack is not None
    assert without is not None
    assert with_attack < without - 0.3


@pytest.mark.parametrize(
    ("kind", "why"),
    [("alie", "is hidden from a bad one"), ("ipm", "is hidden"), ("sign_flip", "a sealed update")],
)
def test_secure_aggregation_is_out_of_an_attacks_reach(kind: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why) as error:
        recipe(transport__secure=True, attack__kind=kind, attack__share=0.4)
    assert "transport.secure = false" in error.value.next_step
    unchecked = Recipe.model_validate(
        {"transport": {"secure": True}, "attack": {"kind": kind, "share": 0.4}}
    )
    with pytest.raises(RecipeError, match=why):
        attacked(unchecked, "grid", {1: "a", 2: "b", 3: "c"})  # type: ignore[arg-type]


def test_flipped_labels_go_with_secure_aggregation(tmp_path: Path) -> None:
    changes = {"attack__kind": "label_flip", "attack__share": 0.4, "train__rounds": 1}
    heads = [
        run(tmp_path / str(secure), recipe(**changes, transport__secure=secure)).head["weight"]
        for secure in (False, True)
    ]
    np.testing.assert_allclose(*heads, atol=1e-6)  # type: ignore[arg-type]


def test_rules_that_need_single_updates_are_refused_under_secure_aggregation(
    tmp_path: Path,
) -> None:
    for name in ("rfa", "norm_bounding"):
        with pytest.raises(StrategyError, match="single updates"):
            run(tmp_path / name, recipe(transport__secure=True, strategy__name=name))
    around = {"transport__secure": True, "strategy__around": {"nnm": {}}}
    with pytest.raises(StrategyError, match="single updates"):
        run(tmp_path / "nnm", recipe(**around))


def test_real_sites_are_not_made_bad() -> None:
    with pytest.raises(RecipeError, match=r"attack\.kind = 'ipm' is for simulations"):
        check_deployable(recipe(attack__kind="ipm", attack__share=0.4, privacy__public_size=100))
    check_deployable(recipe(privacy__public_size=100))


def test_a_wrapped_strategy_runs_from_a_recipe(tmp_path: Path) -> None:
    changes = {**TEN, "train__rounds": 2, "strategy__name": "median"}
    plain = run(tmp_path / "plain", recipe(**changes))
    mixed = run(tmp_path / "mixed", recipe(**changes, strategy__around={"nnm": {"bad": 2}}))
    assert np.any(plain.head["weight"] != mixed.head["weight"])  # type: ignore[operator]
    assert plain.result.accuracy is not None


def test_the_attack_table_is_read_and_wrong_values_are_refused(tmp_path: Path) -> None:
    assert load_recipe(None).attack.kind == "none"
    grid = attacked(recipe(**TEN, attack__kind="alie"), "grid", {n: f"s{n}" for n in range(10)})  # type: ignore[arg-type]
    assert isinstance(grid, AttackedGrid)
    for key, value, problem in (
        ("kind", "sing_flip", "attack.kind = 'sing_flip'"),
        ("share", 0.0, "attack.share = 0"),
        ("share", 1.0, "attack.share = 1"),
        ("strength", 0.0, "attack.strength = 0"),
    ):
        with pytest.raises(RecipeError) as error:
            recipe(**{f"attack__{key}": value})
        assert problem in error.value.problem
    with pytest.raises(RecipeError, match=r"attack\.share = 0\.2 of 3 sites"):
        run(tmp_path, recipe(attack__kind="ipm"))


def test_a_root_set_is_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        "[strategy]\nname = 'fltrust'\n[strategy.options]\nroot = 'own/root.npz'\n"
    )
    options = load_recipe(tmp_path / "r.toml").strategy.options
    assert options == {"root": str((tmp_path / "own/root.npz").resolve())}
    with pytest.raises(StrategyError, match=r"root\.npz' is no \.npz file"):
        make_strategy("fltrust", options)
