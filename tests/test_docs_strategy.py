"""Every block of docs/writing-a-strategy.md works as it stands, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "writing-a-strategy.md"
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.M | re.S)


def blocks() -> list[tuple[str, str, str]]:
    """Return language, file name and text of every block."""
    return BLOCK.findall(PAGE.read_text("utf-8"))


def test_from_the_idea_to_the_plot(tmp_path: Path) -> None:
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    done = []
    for kind, title, text in blocks():
        if title:
            (tmp_path / title).write_text(text, "utf-8")
        elif kind == "bash":
            for command in text.splitlines():
                ran = subprocess.run(
                    ["bash", "-c", command],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
                assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
                done.append(command)
        else:
            assert kind == "toml"
            assert tomllib.loads(text)
    assert len(done) == 7
    for run in ("sqrt", "anchored", "prior"):
        assert (tmp_path / "runs" / run / "report.html").is_file()
    study = tmp_path / "runs" / "study"
    for name in ("report.html", "results.parquet", "table.csv", "table.tex"):
        assert (study / name).is_file(), name


def test_every_block_says_what_it_is() -> None:
    kinds = [kind for kind, _, _ in blocks()]
    assert kinds.count("python") == 3
    assert PAGE.read_text("utf-8").count("```") == 2 * len(kinds)


@pytest.mark.parametrize("title", [t for k, t, _ in blocks() if k == "python"])
def test_the_code_is_as_tidy_as_the_librarys(title: str, tmp_path: Path) -> None:
    (text,) = (text for _, found, text in blocks() if found == title)
    (tmp_path / title).write_text(text, "utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,UP"]
    ran = subprocess.run(
        [*command, "--line-length", "100", str(tmp_path / title)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
