"""``fedtl new strategy``: what it writes runs as it is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedtl.cli import main
from fedtl.testing.template import class_name


def test_what_is_written_runs_as_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "strategy", "my_idea", "--folder", "ideas"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Wrote ideas/my_idea.py and ideas/test_my_idea.py."
    commands = [shlex.split(line) for line in said[2:]]
    assert [c[:2] for c in commands] == [["fedtl", "check-strategy"], ["fedtl", "simulate"]]
    assert main(commands[0][1:]) == 0
    assert "No law is broken." in capsys.readouterr().out
    assert len((tmp_path / "ideas/my_idea.py").read_text().splitlines()) <= 85

    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*tests, "test_my_idea.py"],
        cwd=tmp_path / "ideas",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 passed" in done.stdout


def test_what_is_written_fails_when_it_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "strategy", "mine", "--folder", str(tmp_path)]) == 0
    file = tmp_path / "mine.py"
    file.write_text(file.read_text().replace("{name: mean - self.sent[name]", "{name: mean"))
    capsys.readouterr()
    assert main(["check-strategy", f"{file}:Mine"]) == 1
    assert "fixed point" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    assert main(["new", "strategy", "mine", "--folder", str(tmp_path)]) == 2
    assert "test_mine.py' is there already, and nothing was written." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("class", "is a word of Python itself"),
        ("match", "is a word of Python itself"),
        ("my-idea", "is no name of a Python module"),
        ("2fast", "is no name of a Python module"),
        ("../up", "is no name of a Python module"),
        ("", "is no name of a Python module"),
        ("random", "would hide the module of that name"),
        ("fedtl", "would hide the module of that name"),
    ],
)
def test_a_name_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    assert main(["new", "strategy", name, "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"NAME '{name}' {why}." in said
    assert "my_strategy" in said
    assert list(tmp_path.iterdir()) == []


def test_classes_are_called_like_their_files() -> None:
    assert class_name("my_idea") == "MyIdea"
    assert class_name("fedAvg2") == "FedAvg2"
