"""Every block of docs/writing-a-strategy.md works as it stands, one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, blocks, run_blocks

PAGE = DOCS / "writing-a-strategy.md"


def test_from_the_idea_to_the_plot(tmp_path: Path) -> None:
    done = run_blocks(PAGE, tmp_path)
    assert len(done) == 7
    for run in ("sqrt", "anchored", "prior"):
        assert (tmp_path / "runs" / run / "report.html").is_file()
    study = tmp_path / "runs" / "study"
    for name in ("report.html", "results.parquet", "table.csv", "table.tex"):
        assert (study / name).is_file(), name


def test_every_block_says_what_it_is() -> None:
    kinds = [kind for kind, _, _ in blocks(PAGE)]
    assert kinds.count("python") == 3
    assert PAGE.read_text("utf-8").count("```") == 2 * len(kinds)


@pytest.mark.parametrize("title", [t for k, t, _ in blocks(PAGE) if k == "python"])
def test_the_code_is_as_tidy_as_the_librarys(title: str, tmp_path: Path) -> None:
    (text,) = (text for _, found, text in blocks(PAGE) if found == title)
    (tmp_path / title).write_text(text, "utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,UP"]
    ran = subprocess.run(
        [*command, "--line-length", "100", str(tmp_path / title)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
