"""A plan: what its cells are, and what it is told where it makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import BASE, TWO, plan_file

from fedtl.errors import RecipeError
from fedtl.recipe import Recipe
from fedtl.recipe.study import AXES, load_plan

NONE = BASE.replace('baseline = "fedavg"', "")


def test_cells_are_all_combinations_with_seeds_innermost(tmp_path: Path) -> None:
    axes = "\n[[partition]]\nalpha = 0.1\n[[partition]]\nalpha = 1.0\n"
    plan = load_plan(plan_file(tmp_path, TWO + axes))
    assert [c.title for c in plan.cells] == [
        f"alpha {alpha}, {strategy}, seed {seed}"
        for alpha in ("0.1", "1.0")
        for strategy in ("fedavg", "adam")
        for seed in (1, 2)
    ]
    last = plan.cells[-1].recipe
    assert (last.partition.alpha, last.partition.sites, last.seed) == (1.0, 3, 2)
    assert last.strategy.options == {"eta": 0.1}
    assert plan.cells[0].recipe.strategy.options == {}
    assert (plan.name, plan.baseline, [a.name for a in plan.axes]) == (
        "small",
        "fedavg",
        ["partition", "strategy"],
    )


def test_any_table_of_a_recipe_is_an_axis_and_may_be_changed_alongside(tmp_path: Path) -> None:
    axes = """
[[privacy]]
label = "none"
[[privacy]]
label = "eps 8"
enabled = true
epsilon = 8.0
train = { rounds = 5 }

[[backbone]]
image_size = 32
[[backbone]]
label = "large"
image_size = 64
"""
    plan = load_plan(
        plan_file(tmp_path, axes, NONE.replace(", taps", ', precision = "fp32", taps'))
    )
    assert [axis.name for axis in plan.axes] == ["privacy", "backbone"]
    assert plan.axes[1].labels == ("image_size 32", "large")
    assert plan.baseline == "image_size 32"
    told = {c.labels: (c.recipe.privacy.enabled, c.recipe.train.rounds) for c in plan.cells}
    assert told[(("privacy", "none"), ("backbone", "large"))] == (False, 2)
    assert told[(("privacy", "eps 8"), ("backbone", "large"))] == (True, 5)
    assert {*AXES} == {
        name
        for name, field in Recipe.model_fields.items()
        if isinstance(field.default, object) and hasattr(field.default, "model_fields_set")
    } - {"federation", "compare"}


def test_the_base_may_be_a_file_whose_paths_start_at_itself(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.toml").write_text('data = { source = "x/y.npz" }\nseed = 9\n')
    plan = load_plan(plan_file(tmp_path, TWO, 'base = "recipes/base.toml"\nseeds = [4]\n'))
    assert plan.name == "plan"
    assert plan.cells[0].recipe.data.source == str(tmp_path / "recipes" / "x" / "y.npz")
    assert [c.seed for c in plan.cells] == [4, 4]


def test_the_baseline_is_a_label_or_a_name_and_its_axis_is_compared(tmp_path: Path) -> None:
    axes = TWO + '\n[[partition]]\nlabel = "even"\nkind = "iid"\n[[partition]]\nalpha = 0.1\n'
    by_name = load_plan(plan_file(tmp_path, axes, BASE.replace('"fedavg"', '"fedadam"')))
    assert by_name.baseline == "adam"
    other = load_plan(plan_file(tmp_path, axes, BASE.replace('"fedavg"', '"even"')))
    assert (other.baseline, other.axes[-1].name) == ("even", "partition")


@pytest.mark.parametrize(
    ("axes", "base", "said"),
    [
        ("", BASE, r"has no cells: it varies nothing.*\[\[strategy\]\]"),
        ("", "strategy = []\n", "has no cells: strategy is an empty list"),
        (TWO, BASE.replace("[1, 2]", "[]"), r"seeds = \[\] in .* is empty"),
        (TWO, BASE.replace("[1, 2]", "[1, 1]"), r"seeds = \[1, 1\] in .* repeats one"),
        (TWO, BASE.replace("[1, 2]", "[-1]"), "seeds.0 = -1"),
        (TWO, BASE.replace("[1, 2]", f"[{1 << 63}]"), "seeds.0 = .* less than"),
        (TWO, BASE.replace("[1, 2]", "[true]"), "seeds.0 = True .*valid integer"),
        ("[strategy]\nname = 'fedavg'\n", BASE, r"one table, .*\[\[strategy\]\] .*\[base.strategy"),
        (
            TWO + "[[partition]]\nalpha = 1.0\n[[partition]]\nalpha = 2.0\n",
            BASE.replace("dirichlet", "natural"),
            "varies partition.alpha, and partition.kind = 'natural' has none. Set kind",
        ),
        (TWO, BASE.replace("seeds", "seed"), "'seed' in .* is unknown. Did you mean 'seeds'"),
        (TWO, BASE.replace("rounds", "rouns"), "'train.rouns' .* Did you mean 'rounds'"),
        (TWO, BASE.replace('"fedavg"', '"fedavgg"'), "is no label of the plan. Did you mean"),
        (TWO + "labell = 1\n", BASE, r"'labell' of a \[\[strategy\]\] .* Did you mean 'label'"),
        (TWO + "seed = 3\n", BASE, r"'seed' of a \[\[strategy\]\]"),
        (TWO + TWO, BASE, "are called 'fedavg'"),
        ("[[strategy]]\nname = 'fedavg'\nlabel = 3\n", BASE, "label = 3 .* is no short text"),
        (TWO + "train = { lr = 1.0 }\n[[train]]\nlr = 2.0\n", BASE, "both change train.lr"),
        (TWO + "train = { lr = -1.0 }\n", BASE, r"train.lr = -1.0 in .*\(adam\)"),
        (TWO, "base = 'none.toml'\n", "There is no recipe"),
        (TWO, "base = 'none.toml\n", "is not readable TOML"),
        ("[[partition]]\nkind = 'irichlet'\n", NONE, "Did you mean 'dirichlet'"),
    ],
)
def test_bad_plans_are_refused_and_say_what_to_do(
    axes: str, base: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        load_plan(plan_file(tmp_path, axes, base))


def test_the_example_is_a_plan_that_can_be() -> None:
    from fedtl.launch.study.check import check_cells

    path = Path(__file__).parents[2] / "simulations" / "studies" / "example.toml"
    plan = load_plan(path)
    assert len(plan.cells) == 27
    assert set(check_cells(plan.cells)) == {10, 1}


def test_what_axes_turn_up_and_down_is_found(tmp_path: Path) -> None:
    from fedtl.launch.study.scales import scales_of

    axes = """
[[partition]]
alpha = 0.1
[[partition]]
alpha = 1.0
[[partition]]
kind = "iid"

[[attack]]
label = "none"
[[attack]]
kind = "sign_flip"
share = 0.3
[[attack]]
kind = "alie"
share = 0.1

[[privacy]]
enabled = false
[[privacy]]
label = "private"
enabled = true
"""
    plan = load_plan(plan_file(tmp_path, TWO + axes, BASE.replace("sites = 3", "sites = 10")))
    found = {scale.quantity: scale.points for scale in scales_of(plan)}
    assert found == {
        "alpha": {"alpha 0.1": (("", 0.1),), "alpha 1.0": (("", 1.0),)},
        "share": {
            "none": (("sign_flip", 0.0), ("alie", 0.0)),
            "sign_flip, share 0.3": (("sign_flip", 0.3),),
            "alie, share 0.1": (("alie", 0.1),),
        },
    }
    assert [c.labels[-1][1] for c in plan.cells[:3:2]] == ["fedavg", "adam"]
