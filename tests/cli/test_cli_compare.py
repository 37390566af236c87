"""``fedtl compare``: what it lists, runs, keeps after Ctrl-C, prints, and refuses."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from studies import TWO, faulty_file, plan_file

from fedtl.cli import main


def test_a_plan_is_listed_before_and_after(
    warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(plan_file(tmp_path))
    assert main(["compare", path, "--list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "to do: fedavg, seed 1"
    assert said[-1] == "4 cells, 0 finished; 8 rounds in all."
    assert not Path("runs").exists()
    assert main(["compare", path, "--jobs", "1", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "Report: runs/study-small/report.html" in shown
    assert "Two seeds: there is hardly any power" in shown
    assert Path("runs/study-small/results.parquet").is_file()
    assert main(["compare", path, "--list", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert cells[2] == {"strategy": "adam", "seed": 1, "rounds": 2, "finished": True}
    assert all(cell["finished"] for cell in cells)


def test_a_failed_cell_is_named_and_the_code_says_so(
    warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = f'\n[[strategy]]\nlabel = "bad"\nname = "{faulty_file(tmp_path)}:Raising"\n'
    path = str(plan_file(tmp_path, faults + TWO))
    assert main(["compare", path, "--jobs", "1", "--quiet", "--out", "s"]) == 1
    said = capsys.readouterr().out
    assert "Failed: bad, seed 1 and 1 cell more: " in said
    assert "2 cells of 6 missing" in said
    assert main(["compare", path, "--jobs", "1", "--quiet", "--out", "s", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert set(told["failed"]) == {"bad, seed 1", "bad, seed 2"}
    assert [row["label"] for row in told["rows"]] == ["fedavg", "adam"]
    assert told["rows"][1]["versus"]["p_t"] is not None


def test_trackers_get_every_cell_as_the_page_on_studies_says(
    warm: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "simulations" / "studies" / "README.md"
    block = page.read_text("utf-8").partition("```bash\n")[2].partition("```")[0]
    run, board, ui = (line.split() for line in block.splitlines())
    plan_file(tmp_path)
    assert main([*run[1:], "--jobs", "1", "--quiet"]) == 0
    assert len(list(Path(board[-1]).glob("*/events.*"))) == 4
    assert Path(ui[-1].removeprefix("sqlite:///")).is_file()
    assert capfd.readouterr().err == ""
    for command in (board, ui):
        assert shutil.which(command[0], path=str(Path(sys.executable).parent))
    assert main([*run[1:5], "--quiet", "--mlflow-uri", "gopher://x"]) == 2
    said = capfd.readouterr()
    assert "Report: runs/mine/report.html" in said.out  # nothing is lost by a tracker
    assert "MLflow cannot write to 'gopher://x'" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.toml"], "There is no plan 'none.toml'"),
        (["plan.toml", "--out", "letters"], "'letters' is not empty, and no study"),
        (["plan.toml", "--jobs", "-2"], "--jobs is -2"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    arguments: list[str], said: str, cold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_file(Path.cwd())
    Path("letters").mkdir()
    Path("letters/dear.txt").write_text("dear")
    assert main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_interrupt_ends_soon_and_the_same_command_goes_on(
    shell: Any, warm: Path, tmp_path: Path
) -> None:
    path = plan_file(tmp_path, TWO + "train = { rounds = 2000 }\n")  # the second takes long
    folder = tmp_path / "study"
    command = ("compare", str(path), "--out", str(folder), "--jobs", "2")
    process = shell.start(*command)
    _wait(lambda: len(list(folder.glob("cells/*.json"))) == 2)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begun < 10
    assert "finished cells are kept. Go on with: fedtl compare" in err
    assert "Traceback" not in err
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("cells/*.json")}
    assert len(kept) == 2
    path.write_text(path.read_text().replace("rounds = 2000", "rounds = 3"))
    ran = shell(*command, folder=folder)
    assert ran.code == 0, ran.err
    after = {p.name: p.stat().st_mtime_ns for p in folder.glob("cells/*.json")}
    assert len(after) == 4
    assert kept.items() <= after.items()
    process = shell.start(*command)  # and once more, while page and plots are drawn
    assert any(line.startswith("rounds: 10 of 10") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = err.splitlines()[-1]
    assert said.startswith("Stopped after 10 of 10 rounds; finished cells are kept. Go on with:")


def _wait(ready: object, seconds: float = 90.0) -> None:
    assert callable(ready)
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)
