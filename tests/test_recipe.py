"""A recipe is read as it is meant, written as it was read, and refused with a cure."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import RecipeError
from fedtl.recipe import Recipe, load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "simulations").glob("*.toml"))


def written(folder: Path, recipe: Recipe) -> Recipe:
    (folder / "recipe.toml").write_text(recipe.to_toml(), "utf-8")
    return load_recipe(folder / "recipe.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_that_come_along_are_read_and_written_alike(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert written(tmp_path, recipe) == recipe
    assert written(tmp_path, recipe).digest() == recipe.digest()


def test_the_default_is_the_recipe_of_digits(tmp_path: Path) -> None:
    assert RECIPES
    default = load_recipe()
    assert default == load_recipe(RECIPES[0].with_name("digits.toml"))
    assert written(tmp_path, default) == default


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(1e-9, 1e9)
options = st.dictionaries(
    texts.filter(bool), numbers | st.integers() | st.booleans() | texts, max_size=3
)


@given(texts, options, numbers, st.lists(texts, max_size=3), st.none() | numbers)
def test_any_recipe_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    chosen: dict[str, Any],
    number: float,
    classes: list[str],
    noise: float | None,
) -> None:
    """A run is resumed from the recipe in its folder: it must be this one."""
    folder = tmp_path_factory.mktemp("recipe")
    values = {
        "data": {"source": f"/{text}", "classes": classes},
        "strategy": {"name": "fedavg", "options": chosen},
        "train": {"lr": number},
        "privacy": {"noise_multiplier": noise},
    }
    recipe = Recipe.model_validate(values)
    assert written(folder, recipe) == recipe


def read(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "r.toml").write_text(text)
    return load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("rouns = 3", "'rouns'", "Known: "),
        ("[train]\nround = 3", "'train.round'", "Did you mean 'rounds'"),
        ("[trian]\nrounds = 3", "'trian'", "Did you mean 'train'"),
        ("[train]\nsampling = 'poison'", "train.sampling = 'poison'", "Did you mean 'poisson'"),
        ("[partition]\nkind = 'dirichlett'", "partition.kind", "Did you mean 'dirichlet'"),
        ("[head]\nkind = 'lineal'", "head.kind", "Did you mean 'linear'"),
        ("[train]\nrounds = 0", "train.rounds = 0", "Correct the value"),
        ("[train]\nrounds = 'ten'", "train.rounds = 'ten'", "Correct the value"),
        ("[train]\nlr = -1", "train.lr = -1", "Correct the value"),
        ("[train]\nlr = nan", "train.lr = nan", "Correct the value"),
        ("[train]\nlr = inf", "train.lr = inf", "Correct the value"),
        ("[privacy]\nepsilon = inf", "privacy.epsilon = inf", "Correct the value"),
        ("[privacy]\nclip_norm = nan", "privacy.clip_norm = nan", "Correct the value"),
        ("[privacy]\ndelta = 1.0", "privacy.delta = 1.0", "Correct the value"),
        ("[privacy]\nepsilon = 0", "privacy.epsilon = 0", "Correct the value"),
        ("[transport]\ndropout = 1.0", "transport.dropout = 1.0", "Correct the value"),
        ("[data]\ntest_fraction = 1.5", "data.test_fraction = 1.5", "Correct the value"),
        ("name = '../escape'", "name = '../escape'", "Correct the value"),
        ("name = ''", "name = ''", "Correct the value"),
        ("seed = -1", "seed = -1", "Correct the value"),
        ("train = 3", "train = 3", "Correct the value"),
        ("[train]\nrounds = 0\nlr = 0\n", "(1 more problems follow.)", "Correct the value"),
        ("rounds = ", "not readable TOML", "Mend"),
        ("[train]\nsampling = 'shuffle'", "cannot be private", "'poisson'"),
        ("[train]\nsites_per_round = 9", "sites_per_round = 9 is more than", "Lower"),
        ("[head]\nkind = 'mlp'\n[train]\noptimizer = 'adam'", "head.kind = 'mlp'", "'sgd'"),
        ("[head]\nkind = 'mlp'\n[train]\naveraging = 0.5", "head.kind = 'mlp'", "averaging 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_a_cure(
    tmp_path: Path, text: str, problem: str, cure: str
) -> None:
    with pytest.raises(RecipeError) as error:
        read(tmp_path, text)
    assert problem in error.value.problem
    assert cure in error.value.next_step


def test_a_recipe_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="There is no recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="not readable TOML"):
        load_recipe(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not readable TOML"):
        load_recipe(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("table", "key", "value", "expected"),
    [
        ("data", "source", "pictures/all", "{folder}/pictures/all"),
        ("data", "source", "../t.csv", "{parent}/t.csv"),
        ("data", "source", "t.npz", "{folder}/t.npz"),
        ("data", "source", "/abs/t.npz", "/abs/t.npz"),
        ("data", "source", "~/t.npz", "~/t.npz"),
        ("data", "source", "digits", "digits"),
        ("backbone", "weights", "w.safetensors", "{folder}/w.safetensors"),
        ("backbone", "weights", "", ""),
        ("strategy", "name", "mine.py:Mine", "{folder}/mine.py:Mine"),
        ("strategy", "name", "fedavg", "fedavg"),
        ("strategy", "name", "package.module:Mine", "package.module:Mine"),
    ],
)
def test_relative_paths_start_at_the_recipes_own_folder(
    tmp_path: Path, table: str, key: str, value: str, expected: str
) -> None:
    """A recipe means the same wherever it is started from."""
    folder = tmp_path / "sub"
    folder.mkdir()
    recipe = read(folder, f"[{table}]\n{key} = '{value}'\n")
    found = getattr(getattr(recipe, table), key)
    resolved = folder.resolve()
    assert found == expected.format(folder=resolved, parent=resolved.parent)


def test_overrides_reach_into_tables_and_are_checked() -> None:
    recipe = load_recipe(None, {"train.rounds": 3, "strategy.options.ridge": 0.5, "name": "x"})
    assert (recipe.train.rounds, recipe.strategy.options, recipe.name) == (3, {"ridge": 0.5}, "x")
    assert load_recipe().train.rounds == 10  # the default is not edited
    with pytest.raises(RecipeError, match=r"'train\.rouns'"):
        load_recipe(None, {"train.rouns": 3})
    with pytest.raises(RecipeError, match=r"'name' must be a table. Write it as \[name\]"):
        load_recipe(None, {"name.more": 3})


def test_every_key_changes_the_digest() -> None:
    """Two runs with one digest are the same run."""
    recipe = load_recipe()
    tables = tomllib.loads(recipe.to_toml())
    digests = {recipe.digest()}
    changes = [{"seed": 2}, {"name": "other"}, {"train.lr": 1.0}, {"privacy.enabled": False}]
    changes += [{"transport.via": "local"}, {"data.test_fraction": 0.3}, {"head.hidden": 3}]
    digests |= {load_recipe(None, change).digest() for change in changes}
    assert len(digests) == len(changes) + 1
    assert tables["name"] == "digits"


def test_an_mlp_has_a_learning_rate_of_its_own_unless_one_is_set() -> None:
    linear, mlp = load_recipe(None), load_recipe(None, {"head.kind": "mlp"})
    assert mlp.train.lr < linear.train.lr
    assert load_recipe(None, {"head.kind": "mlp", "train.lr": 20.0}).train.lr == 20
    assert load_recipe(None, {"head.kind": "mlp", "train.rounds": 3}).train.lr == mlp.train.lr
