"""A package of somebody else's: once installed, what it registers works by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from studies import BASE

PROJECT = """
[project]
name = "their-bench"
version = "1.0"

[project.entry-points."fedtl.strategies"]
theirs = "their_bench:Theirs"

[project.entry-points."fedtl.objectives"]
their_pull = "their_bench:Pull"

[project.entry-points."fedtl.statistics"]
their_counts = "their_bench:Counts"
"""
MODULE = '''
"""A round of counts, which have to come, then FedAvg with a pull towards zero."""

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import FedAvg

from fedtl.train.objectives import LocalObjective, LocalStatistic, ObjectiveName
from fedtl.wire.arrays import unpack
from fedtl.wire.messages import SUMS
from fedtl.wire.objective import with_objective


class Pull(LocalObjective):
    def penalty_gradient(self, weights, local):
        return 0.001 * weights


class Counts(LocalStatistic):
    def size(self, width, classes):
        return classes

    def rows(self, x, y, classes):
        return torch.nn.functional.one_hot(y, classes)


class Theirs(FedAvg):
    mechanisms = ("sums", "gradients")
    statistic = ObjectiveName("their_counts")

    def configure_train(self, server_round, arrays, config, grid):
        if server_round > 1:
            messages = super().configure_train(server_round, arrays, config, grid)
            return with_objective(messages, ObjectiveName("their_pull"))
        config["server-round"] = 1
        content = RecordDict({self.configrecord_key: config})
        messages = self._construct_messages(content, list(grid.get_node_ids()), SUMS)
        return with_objective(messages, self.statistic)

    def aggregate_train(self, server_round, replies):
        if server_round > 1:
            return super().aggregate_train(server_round, replies)
        counts = [unpack(r.content["arrays"])["sum"] for r in replies if r.has_content()]
        if counts and np.sum(counts) < 20:
            raise ValueError("hardly anybody was counted")
        return None, None
'''
BAD_PROJECT = """
[project]
name = "bad-bench"
version = "1.0"

[project.entry-points."fedtl.strategies"]
absent = "no_such_module:Theirs"
failing = "bad_bench:Theirs"
plain = "collections:OrderedDict"
fedavg = "their_bench:Theirs"
"""
PLAN = '\n[[strategy]]\nname = "fedprox"\n\n[[strategy]]\nname = "theirs"\n'
COMMANDS = "import json, sys\nfrom fedtl.cli import main\n" + (
    "for line in sys.stdin:\n    print('\\n->', main(json.loads(line)), flush=True)\n"
)


def installed(target: Path, project: str, **modules: str) -> Path:
    """Install a package for real: a wheel, as any build backend writes it, by pip."""
    read = tomllib.loads(project)["project"]
    name, version = read["name"].replace("-", "_"), read["version"]
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in read["entry-points"].items()
    )
    info = f"{name}-{version}.dist-info"
    files = {
        **{f"{module}.py": text for module, text in modules.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {read['name']}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    wheel = target.parent / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, timeout=120)
    return target


def answers(commands: list[list[str]], *targets: Path, shell: Any, cwd: Path) -> list[str]:
    """Return what ``fedtl`` says to each command, where packages are installed."""
    paths = os.pathsep.join(str(target) for target in targets)
    ran = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(json.dumps(command) for command in commands),
        env={**shell.env, "PYTHONPATH": paths},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=True,
    )
    said = re.split(r"(?<=^-> \d)\n", ran.stdout, flags=re.M)
    return said[: len(commands)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("theirs") / "site", PROJECT, their_bench=MODULE)


def test_what_a_package_registers_works_by_its_name(
    shell: Any, finished: Any, theirs: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(BASE.replace("fedavg", "fedprox") + PLAN)
    small = ["--set", "data.limit=160", "--set", "backbone.image_size=32", "--rounds", "3"]
    said = answers(
        [
            ["check-strategy", "theirs"],
            ["simulate", *small, "--strategy", "theirs", "--quiet", "--out", "run"],
            ["compare", "plan.toml", "--quiet", "--jobs", "1", "--out", "study"],
            ["compare", "plan.toml", "--out", "study", "--list"],
        ],
        theirs,
        shell=shell,
        cwd=tmp_path,
    )
    assert [text[-1] for text in said] == ["0"] * 4, said
    assert "No law is broken." in said[0]
    assert "Report: run/report.html" in said[1]
    assert "theirs" in said[2]
    assert "4 cells, 4 finished" in said[3]


def test_what_is_wrong_with_a_package_is_said(shell: Any, theirs: Path, tmp_path: Path) -> None:
    failing = "from their_bench import Nothing\n"
    bad = installed(tmp_path / "bad", BAD_PROJECT, bad_bench=failing)
    (tmp_path / "plan.toml").write_text(BASE + '\n[[strategy]]\nname = "fedavg"\n')
    said = answers(
        [
            ["check-strategy", "absent"],
            ["check-strategy", "failing"],
            ["check-strategy", "plain"],
            ["check-strategy", "their"],
            ["simulate", "--strategy", "fedavg"],
            ["compare", "plan.toml", "--list"],
        ],
        theirs,
        bad,
        shell=shell,
        cwd=tmp_path,
    )
    both = "'fedavg' is the name of flwr.serverapp.strategy:FedAvg and of their_bench:Theirs"
    expected = [
        ("'absent' cannot be imported from 'no_such_module'", "Install the package"),
        ("'failing' cannot be imported from 'bad_bench': ImportError", "Mend the module"),
        ("'collections' has no Flower Strategy class 'OrderedDict'", "Derive it"),
        ("Strategy 'their' is unknown", "Did you mean 'theirs'"),
        (both, "Write the one that you mean in its place"),
        (both, "Write the one that you mean in its place"),
    ]
    for text, (problem, cure) in zip(said, expected, strict=True):
        assert text.endswith("-> 2"), text
        assert problem in text
        assert cure in text
        assert "Traceback" not in text
