"""``fedtl check-strategy``: the verdict on the terminal, in JSON, and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedtl.cli import main
from fedtl.testing import LAWS

FAULTY = """
from flwr.serverapp.strategy import FedAvg

class Faulty(FedAvg):
    def __init__(self, *, by: float, min_train_nodes: int = 1) -> None:
        super().__init__(min_train_nodes=min_train_nodes)
        self.by = by

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        answer = super().aggregate_train(server_round, replies)
        if self.by:
            for reply in replies:
                reply.content["arrays"].clear()
        return answer
"""


DECLARES = """
from flwr.serverapp.strategy import FedAvg

class Rounds(FedAvg):
    rounds = "three"

class Asks(FedAvg):
    mechanisms = ("gradiens",)

class Shares(FedAvg):
    mechanisms = ("sums", "gradients")
    shares = {"sums": 0.7}

class Counts(FedAvg):
    statistic = "counts"

class Raises(FedAvg):
    @property
    def personal(self):
        return 1 / 0

class Personal(FedAvg):
    personal = "ditto"

class Directions(FedAvg):
    directions = 0

class Map(FedAvg):
    feature_map = 7

class Kind(FedAvg):
    head_kind = "lineer"

class Sums(FedAvg):
    sums_rounds = 3

class Updates(FedAvg):
    needs_updates = "yes"

class Ends(FedAvg):
    def __init__(self):
        raise SystemExit(4)

class Other(FedAvg):
    def __new__(cls):
        return 3
"""
FILES = {
    "faulty.py": FAULTY,
    "declares.py": DECLARES,
    "exits.py": "import sys\nsys.exit(3)\n",
    "beside.py": "from helper_beside import step\n",
    "helper_beside.py": "step = 1\n",
    "relative.py": "from . import helper_beside\n",
}


def test_a_strategy_that_keeps_all_laws(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-strategy", "fedavg"]) == 0
    said = capsys.readouterr().out
    for law in LAWS:
        assert law in said
    assert "No law is broken." in said
    assert said.count("told") == 3


def test_a_broken_law_is_shown_with_input_expected_and_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    target = f"{tmp_path / 'faulty.py'}:Faulty"
    assert main(["check-strategy", target, "--option", "by=2", "--law", "inputs"]) == 1
    said = capsys.readouterr().out
    assert "* inputs: Leave inputs alone" in said
    assert "given: the reply of site-a in round 1" in said
    assert "expected: the same after aggregate_train of round 1" in said
    assert "seen: 'arrays/weight' was taken out" in said
    assert "1 of 1 laws broken." in said
    assert main(["check-strategy", target, "--option", "by=0", "--law", "inputs"]) == 0


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    given = [f"{tmp_path / 'faulty.py'}:Faulty", "--option", "by=2", "--json"]
    assert main(["check-strategy", *given, "--law", "inputs", "--law", "secure aggregation"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["strategy"] == "Faulty"
    inputs, secure = told["verdicts"]
    assert (inputs["law"], inputs["outcome"]) == ("inputs", "broken")
    assert inputs["says"].startswith("Leave inputs alone")
    assert secure["outcome"] in ("told", "does not apply")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["fedagv"], "Did you mean 'fedavg'"),
        (["nowhere.py:Mine"], "There is no strategy file 'nowhere.py'"),
        (
            ["{folder}/faulty.py"],
            "names a file, and no class in it. Write {folder}/faulty.py:Faulty",
        ),
        (
            ["{folder}/declares.py:Raises"],
            "fails when it is asked for what it needs: ZeroDivisionError: division by zero.",
        ),
        (["{folder}/exits.py:Mine"], "fails at line 2: SystemExit: 3"),
        (["{folder}/beside.py:Mine"], "set PYTHONPATH={folder}"),
        (["{folder}/relative.py:Mine"], "without leading dots"),
        (["{folder}/declares.py:Rounds"], "rounds = 'three' of strategy"),
        (["{folder}/declares.py:Asks"], "Did you mean 'gradients'"),
        (["{folder}/declares.py:Shares"], "a share above 0 for each of its mechanisms"),
        (["{folder}/declares.py:Counts"], "ObjectiveName.of"),
        (["{folder}/declares.py:Personal"], "personal = 'ditto' of strategy"),
        (["{folder}/declares.py:Directions"], "directions = 0 of strategy"),
        (["{folder}/declares.py:Map"], "feature_map = 7 of strategy"),
        (["{folder}/declares.py:Kind"], "Give one of linear, mlp"),
        (["{folder}/declares.py:Sums"], "sums_rounds = 3 of strategy"),
        (["{folder}/declares.py:Updates"], "Give True or False"),
        (["{folder}/declares.py:Ends"], "cannot be made from {{}}: SystemExit: 4. Mend its"),
        (["{folder}/declares.py:Other"], "makes 3, which is no Flower Strategy"),
        (["{folder}/faulty.py:Faulty"], "needs 'by', and nothing says what"),
        (["{folder}/faulty.py:Fautly", "--option", "by=1"], "Did you mean 'Faulty'"),
        (["fedavg", "--law", "ordre"], "Did you mean 'order'"),
        (["fedavg", "--option", "eta"], "Write KEY=VALUE"),
        (["fedavg", "--option", "fraction_trian=1"], "no option 'fraction_trian'"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert main(["check-strategy", *(a.format(folder=tmp_path) for a in arguments)]) == 2
    said = capsys.readouterr()
    assert problem.format(folder=tmp_path) in said.err
    assert said.out == ""


def test_an_interrupt_while_a_file_is_loaded_ends_quietly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    assert main(["check-strategy", f"{tmp_path / 'slow.py'}:Mine"]) == 130
    assert capsys.readouterr() == ("", "Stopped.\n")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-strategy", "--help"]) == 0
    assert "fedtl check-strategy my_strategy.py:Mine" in capsys.readouterr().out
