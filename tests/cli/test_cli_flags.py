import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.cli.flags import Flags
from fedtl.cli.recipe import commented
from fedtl.errors import RecipeError
from fedtl.recipe import load_recipe


def test_a_flag_changes_its_key_and_nothing_else():
    default = load_recipe()
    changed = load_recipe(None, Flags(sites=3, partition="dirichlet:0.1").overrides())
    assert changed.partition.sites == 3
    assert changed.partition.alpha == pytest.approx(0.1)
    assert changed.model_copy(update={"partition": default.partition}) == default


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ({"partition": "classes:2"}, "partition.classes_per_site", 2),
        ({"partition": "natural"}, "partition.kind", "natural"),
        ({"epsilon": "none"}, "privacy.enabled", False),
        ({"epsilon": "3"}, "privacy.epsilon", 3.0),
        ({"settings": ("train.lr=0.5",)}, "train.lr", 0.5),
        ({"settings": ('data.classes=["a", "b"]',)}, "data.classes", ["a", "b"]),
        ({"settings": ("strategy.name=krum",)}, "strategy.name", "krum"),
        ({"settings": ("name=a\nseed=3",)}, "name", "a\nseed=3"),
    ],
)
def test_what_a_flag_means(flags: dict[str, object], key: str, value: object):
    assert Flags(**flags).overrides()[key] == value  # type: ignore[arg-type]


def test_an_epsilon_given_turns_privacy_on_again(tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text("[privacy]\nenabled = false\n")
    assert load_recipe(path, Flags(epsilon="2").overrides()).privacy.enabled


@pytest.mark.parametrize("epsilon", ["nan", "-1", "0"])
def test_an_impossible_epsilon_is_refused(epsilon: str):
    with pytest.raises(RecipeError, match=r"privacy\.epsilon"):
        load_recipe(None, Flags(epsilon=epsilon).overrides())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"epsilon": "much"}, "'none'"),
        ({"partition": "iid:3"}, "takes no number"),
        ({"partition": "dirichelt:3"}, "Did you mean 'dirichlet'"),
        ({"settings": ("train.lr",)}, "KEY=VALUE"),
        ({"settings": (".lr=1",)}, "KEY=VALUE"),
    ],
)
def test_an_unreadable_flag_says_how_to_write_it(flags: dict[str, object], said: str):
    with pytest.raises(RecipeError, match=said):
        Flags(**flags).overrides()  # type: ignore[arg-type]


def test_a_relative_path_still_leads_there_from_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Flags(data="photos").overrides()["data.source"] == str(tmp_path / "photos")
    assert Flags(data="digits").overrides()["data.source"] == "digits"
    assert Flags(data="./digits").overrides()["data.source"] == str(tmp_path / "digits")
    named = Flags(strategy="mine.py:Mine").overrides()["strategy.name"]
    assert named == f"{tmp_path / 'mine.py'}:Mine"


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_setting_is_read_or_refused_with_a_reason(key: str, value: str):
    flags = Flags(settings=(f"{key}={value}",))
    if all(key.partition("=")[0].strip().split(".")):
        assert len(flags.overrides()) == 1
    else:
        with pytest.raises(RecipeError):
            flags.overrides()


def test_the_commented_recipe_reads_back_as_the_same_recipe(tmp_path: Path):
    recipe = load_recipe(None, {"strategy.options.eta": 0.5, "name": "x"})
    path = tmp_path / "r.toml"
    path.write_text(commented(recipe))
    assert load_recipe(path) == recipe
    text = path.read_text()
    assert "rounds = 10" in text
    assert "Dirichlet concentration" in text
    assert "# noise_multiplier is not set: default: calibrated" in text
    assert "# timeout is not set" in text.split("[transport]")[1].split("[compare]")[0]
    tomllib.loads(text)
