"""Strategies by name, and anyone's own from a file; whatever is wrong is said with a cure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from replies import heads, reply

from fedtl.errors import StrategyError
from fedtl.strategies import STRATEGIES, make_strategy
from fedtl.wire.arrays import unpack

OWN = """
import math
from flwr.serverapp.strategy import FedAvg, Strategy

class Mine(FedAvg):
    def __init__(self, *, step: float = 1.0, min_train_nodes: int = 2) -> None:
        super().__init__(min_train_nodes=min_train_nodes, min_evaluate_nodes=1)
        if step < 0:
            raise ValueError("step is below 0")
        self.step = step

class Open(FedAvg):
    def __init__(self, **options) -> None:
        super().__init__()
        self.options = options

class Other:
    pass

class Unfinished(Strategy):
    pass

class Needy(FedAvg):
    def __init__(self, factor: float, *, clip: float, more: float = 1.0) -> None:
        super().__init__()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "fltrust"])  # needs a file
def test_every_known_strategy_can_be_made_and_waits_for_nobody(name: str) -> None:
    strategy = make_strategy(name)
    for minimum in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"):
        assert getattr(strategy, minimum) == 1


def test_a_file_of_ones_own(own: Path) -> None:
    strategy = make_strategy(f"{own}:Mine", {"step": 0.5})
    assert isinstance(strategy, FedAvg)
    assert (strategy.step, strategy.min_train_nodes) == (0.5, 1)  # type: ignore[attr-defined]
    given = make_strategy(f"{own}:Mine", {"min_train_nodes": 3})
    assert given.min_train_nodes == 3  # type: ignore[attr-defined]
    arrays, _ = strategy.aggregate_train(1, [reply(1000, heads(1)[0])])
    assert arrays is not None
    np.testing.assert_allclose(unpack(arrays)["weight"], heads(1)[0]["weight"])


def test_a_class_that_takes_anything_gets_anything(own: Path) -> None:
    strategy = make_strategy(f"{own}:Open", {"colour": "red"})
    assert strategy.options == {"colour": "red"}  # type: ignore[attr-defined]


def test_two_files_of_one_name_are_two_strategies(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.py").write_text(
            f"from flwr.serverapp.strategy import FedAvg\nclass S(FedAvg):\n    value = {value}\n"
        )
    made = [make_strategy(f"{tmp_path / f / 's.py'}:S") for f in ("a", "b", "a")]
    assert [s.value for s in made] == [1, 2, 1]  # type: ignore[attr-defined]


CASES = {
    "fedagv": ("Strategy 'fedagv' is unknown", "Did you mean 'fedavg'"),
    "{folder}/none.py:Mine": ("There is no strategy file", "Check the path"),
    "{folder}/syntax.py:Mine": ("fails at line 3: SyntaxError", "Mend the file"),
    "{folder}/raises.py:Mine": ("fails at line 2: ZeroDivisionError", "Mend the file"),
    "{folder}/mine.py:Mien": ("no Flower Strategy class 'Mien'", "Did you mean 'Mine'"),
    "{folder}/mine.py:Other": ("no Flower Strategy class 'Other'", "Known: "),
    "{folder}/mine.py:": ("no Flower Strategy class ''", "Known: "),
    "{folder}/empty.py:Mine": ("no Flower Strategy class 'Mine'", "Derive it from Strategy"),
    "nowhere.at_all:Mine": ("cannot be imported", "Install the package"),
    "{folder}/mine.py:Unfinished": ("has no 'aggregate_evaluate', ", "derive Unfinished from"),
    "{folder}/mine.py:Needy": ("needs 'factor' and 'clip'", "factor = ..., clip = ..."),
    "{folder}/mine.py:math": ("no Flower Strategy class 'math': that is a module", "Derive it"),
    "{folder}/lacks.py:Mine": ("at line 1: ModuleNotFoundError", "Install 'no_such_package'"),
    ":Mine": ("cannot be imported", "Install the package"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_with_a_cure(name: str, own: Path) -> None:
    folder = own.parent
    (folder / "syntax.py").write_text("x = 1\n\nclass Mine(:\n")
    (folder / "raises.py").write_text("x = 1\nx / 0\n")
    (folder / "empty.py").write_text("")
    (folder / "lacks.py").write_text("import no_such_package\n")
    problem, cure = CASES[name]
    with pytest.raises(StrategyError) as error:
        make_strategy(name.format(folder=folder))
    assert problem in error.value.problem
    assert cure in error.value.next_step
    assert error.value.next_step


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("fedavg", {"fraction_trian": 0.5}, "no option 'fraction_trian'"),
        ("fed3r", {"rigde": 0.5}, "no option 'rigde'"),
        ("fed3r", {"ridge": -1.0}, "ridge = -1.0 must be above 0"),
        ("fedtrimmedavg", {"beta": "much"}, "cannot be made from {'beta': 'much'}"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, object], problem: str) -> None:
    with pytest.raises(StrategyError, match=problem) as error:
        make_strategy(name, options)
    assert error.value.next_step


def test_an_options_typo_gets_the_nearest(own: Path) -> None:
    with pytest.raises(StrategyError, match="Did you mean 'step'"):
        make_strategy(f"{own}:Mine", {"stepp": 1})
    with pytest.raises(StrategyError, match="step is below 0"):
        make_strategy(f"{own}:Mine", {"step": -1})


def test_what_the_constructor_needs_can_be_given(own: Path) -> None:
    with pytest.raises(StrategyError, match="needs 'clip',") as error:
        make_strategy(f"{own}:Needy", {"factor": 2.0})
    assert error.value.code == "strategy.needs-options"
    assert isinstance(make_strategy(f"{own}:Needy", {"factor": 2.0, "clip": 1.0}), FedAvg)


def test_a_file_that_fails_leaves_no_half_module_behind(own: Path) -> None:
    own.write_text("1 / 0\n")
    before = set(sys.modules)
    with pytest.raises(StrategyError):
        make_strategy(f"{own}:Mine")
    assert {name for name in set(sys.modules) - before if "mine" in name} == set()
