"""What ``fedtl run`` shows while a run goes on, and what it refuses before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fedtl.cli import main
from fedtl.cli.run import table
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.watch import RunProgress, SiteProgress

SITES = (
    SiteProgress("north", "training", seconds=4.2, down=53_400, up=17_800, epsilon=2.5, left=5.5),
    SiteProgress("south\x1b[2J", "left out", detail="runs fedtl 9.9.9, and the server 0.1.0"),
)


def test_the_table_shows_every_site_with_its_bytes_and_its_budget() -> None:
    told = RunProgress("running", round=1, rounds=3, accuracy=0.875, sites=SITES)
    console = Console(width=140, record=True)
    console.print(table(told))
    text = console.export_text()
    assert "Round 2 of 3, accuracy 87.5 %" in text
    (north,) = [line for line in text.splitlines() if "north" in line]
    for shown in ("training", "4.2 s", "53.4 kB", "17.8 kB", "2.50", "5.50"):
        assert shown in north
    assert "runs fedtl 9.9.9" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--on", "nowhere"], "server init"),
        (["--on", "c"], "fedtl server up"),
        (["--on", "c", "--resume", "c/runs/none"], "not a run folder"),
        (["--on", "c", "--resume", "c", "--rounds", "3"], "own recipe"),
    ],
)
def test_a_mistake_is_told_with_its_cure(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_coordinator(tmp_path / "c", address="localhost:9443", name="c")
    assert main(["run", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert "Traceback" not in told
