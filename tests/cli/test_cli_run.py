"""Runs: in processes of their own where signals matter, in this one otherwise."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedtl.cli import main

SMALL = ("--set", "data.limit=160", "--set", "backbone.image_size=32", "--rounds", "3")
ALONE = ("--set", "compare.without_privacy=false", "--set", "compare.local_only=false")
LONG = (*SMALL, "--rounds", "60", "--set", "evaluate_every=0", *ALONE)


def _wait(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    for _ in range(6000):
        if ready() or process.poll() is not None:
            return
        time.sleep(0.01)


def _rounds(run: Path) -> int:
    path = run / "checkpoint" / "history.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def test_a_run_shows_results_on_stdout_progress_on_stderr_and_what_to_do_next(finished: Any):
    assert "Global head, 3 of 3 rounds" in finished.out
    assert f"Report: {finished.folder / 'report.html'}" in finished.out
    assert f"fedtl predict {finished.folder} IMAGE" in finished.out
    assert (finished.folder / "report.html").is_file()
    lines = finished.err.splitlines()
    assert "rounds: 3 of 3" in lines
    assert [line for line in lines if line.startswith("features: ")]
    # neither Flower's account of every round nor anybody's warnings
    assert {line.split(":")[0] for line in lines} <= {
        *("features", "rounds", "without privacy", "local only")
    }


def test_after_ctrl_c_resume_gives_the_head_of_an_uninterrupted_run(shell: Any, finished: Any):
    whole, cut = shell.cwd / "whole", shell.cwd / "cut"
    assert shell("simulate", *LONG, "--quiet", "--out", str(whole)).code == 0
    process = shell.start("simulate", *LONG, "--out", str(cut))
    _wait(process, lambda: _rounds(cut) >= 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 3 <= _rounds(cut) < 60
    last = said.splitlines()[-1]
    assert last.startswith("Stopped after round ")
    assert last.endswith(f"Go on with: fedtl simulate --resume {cut}")
    assert "Traceback" not in said
    assert json.loads((cut / "report.json").read_text())["status"] == "stopped"
    resumed = shell("simulate", "--resume", str(cut), "--quiet")
    assert (resumed.code, resumed.err) == (0, "")
    heads = [(run / "module" / "head.safetensors").read_bytes() for run in (whole, cut)]
    assert heads[0] == heads[1]


def test_a_job_ended_before_its_first_round_is_resumed(shell: Any, finished: Any):
    run = shell.cwd / "early"
    # features of a size that nobody has asked for yet take seconds
    fresh = ("--set", "data.limit=400", "--set", "backbone.image_size=96")
    process = shell.start("simulate", *SMALL, *fresh, *ALONE, "--out", str(run))
    _wait(process, (run / "recipe.toml").is_file)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("Stopped before round 1;")
    assert shell("simulate", "--resume", str(run), "--quiet").code == 0
    assert (run / "module" / "head.safetensors").is_file()


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
def test_ctrl_c_ends_a_run_on_ray_at_once(shell: Any, finished: Any):
    run = shell.cwd / "ray"
    process = shell.start("simulate", *LONG, "--via", "ray", "--out", str(run))
    _wait(process, lambda: _rounds(run) >= 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith(f"Go on with: fedtl simulate --resume {run}")


def test_resume_refuses_another_recipe_and_names_what_changed(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["simulate", "--resume", str(warm), "--rounds", "4", "--epsilon", "none"]) == 2
    said = capsys.readouterr().err
    assert "train.rounds is 3 there and 4 here" in said
    assert "privacy.enabled is True there and False here" in said
    assert main(["simulate", "--resume", str(warm), "--out", "elsewhere"]) == 2
    Path("other.toml").write_text("seed = 7\n")
    assert main(["simulate", "other.toml", "--resume", str(warm)]) == 2
    assert "seed is 1 there and 7 here" in capsys.readouterr().err


def test_resume_of_a_finished_run_with_its_own_flags_changes_nothing(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    head = (warm / "module" / "head.safetensors").read_bytes()
    assert main(["simulate", "--resume", str(warm), "--rounds", "3", "--json", "-q"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "finished"
    assert said.err == ""
    assert (warm / "module" / "head.safetensors").read_bytes() == head


def test_out_never_writes_into_a_folder_that_holds_something(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["simulate", *SMALL, "--out", str(warm)]) == 2
    assert f"--resume {warm}" in capsys.readouterr().err
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work")
    assert main(["simulate", *SMALL, "--out", "full"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in Path("full").iterdir()] == ["thesis.tex"]


def test_the_json_summary_is_all_of_stdout_and_names_the_run(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["simulate", *SMALL, "--json", "--epsilon", "none", "--sites", "2"]) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert Path(summary["run"]).parent == Path("runs")
    assert (Path(summary["run"]) / "report.json").is_file()
    assert 0.0 <= summary["accuracy"] <= 1.0
    assert (len(summary["sites"]), summary["epsilon"]) == (2, None)
    assert "rounds: 3 of 3" in said.err


def test_ray_that_is_not_installed_is_said_before_any_work(
    cold: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["simulate", "--via", "ray"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: --via ray needs")
    assert "pip install 'fedtl[ray]'" in said
    assert not list((cold / "work").iterdir())


def test_a_dry_run_is_a_recipe_that_tells_what_it_costs_and_writes_no_run(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["simulate", *SMALL, "--dry-run"]) == 0
    said = capsys.readouterr().out
    recipe = tomllib.loads(said)
    assert recipe["data"]["limit"] == 160
    assert "0 images to extract" in said
    assert "epsilon 8.00 over the whole run: gradients clipped to 0.5, noise multiplier" in said
    assert not list(Path().iterdir())


def test_the_dry_run_foretells_images_bytes_and_privacy_of_the_run(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["simulate", *SMALL, "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    result = json.loads((warm / "report.json").read_text())
    site = result["sites"][0]
    assert cost["sites"] == len(result["sites"])
    assert cost["images_cached"] == sum(s["train"] + s["test"] for s in result["sites"])
    assert cost["epsilon_per_site"] == pytest.approx(site["epsilon"])
    assert cost["releases"]["gradients"] in result["plan"]
    # arrays travel with a header of a few dozen bytes
    assert cost["bytes_up"] == pytest.approx(site["bytes_up"] / 3, rel=0.01)
    assert cost["bytes_down"] == pytest.approx(site["bytes_down"] / 3, rel=0.01)


def test_a_dry_run_extracts_nothing(warm: Path, capsys: pytest.CaptureFixture[str]):
    big = ["simulate", "--set", "backbone.image_size=32", "--set", "data.limit=1300", "--dry-run"]
    for _ in range(2):
        assert main([*big, "--json"]) == 0
        cost = json.loads(capsys.readouterr().out)["cost"]
        assert cost["images_cached"] + cost["images_to_extract"] == cost["examples"]
    early = cost["images_to_extract"]
    assert main(big) == 0
    said = capsys.readouterr().out
    assert f"{early:,} images to extract" in said


def test_a_dry_run_refuses_what_the_run_would(warm: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", *SMALL, "--dry-run", "--sites", "900"]) == 2
    assert "too few for 900 sites" in capsys.readouterr().err


def test_fed3r_is_told_to_send_its_statistics_once(warm: Path, capsys: pytest.CaptureFixture[str]):
    import torch

    from fedtl.train.additive import statistics
    from fedtl.train.fit import Examples

    assert main(["simulate", *SMALL, "--strategy", "fed3r", "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    examples = Examples.of(torch.ones(2, 2209), torch.tensor([0, 1]))
    sent = statistics(examples, 10).values()
    assert cost["bytes_up"] == sum(values.nbytes for values in sent)
    assert list(cost["releases"]) == ["statistics"]
    assert "1 release," in cost["releases"]["statistics"]


def test_files_left_out_are_named_in_the_terminal_and_nowhere_else(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    """Who runs it owns the files and has to find them; who gets the report does not."""
    rng = np.random.default_rng(0)
    for at in range(40):
        file = Path(f"photos/{'ab'[at % 2]}/{at}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(file)
    Path("photos/a/miller-anna.png").touch()
    asked = ("--data", "photos", "--set", "data.tolerate_unreadable=1", "--partition", "iid")
    small = ("--sites", "2", "--rounds", "1", "--set", "backbone.image_size=32", *ALONE)
    assert main(["simulate", *asked, *small, "--out", "run", "-q"]) == 0
    said = capsys.readouterr()
    assert "Left out: a/miller-anna.png (zero-byte)" in said.err
    assert "Problem: 1 file left out: zero-byte" in said.out
    assert "miller" not in said.out
    for file in Path("run").rglob("*"):
        assert not file.is_file() or b"miller" not in file.read_bytes()


def test_the_dry_run_foretells_the_bytes_of_whitening_under_secure_aggregation(
    warm: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["simulate", *SMALL, "--strategy", "fedwhiten", "--rounds", "4"]
    asked += ["--set", "transport.secure=true", "--set", "train.local_steps=1"]
    assert main([*asked, "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert list(cost["costs"]) == ["mean", "covariance", "gradients"]
    assert max(cost["costs"].values()) < cost["epsilon_per_site"]
    assert main([*asked, "--out", "white", "-q", "--json"]) == 0
    site = json.loads(capsys.readouterr().out)["sites"][0]
    told = cost["bytes_up_once"] + 2 * cost["bytes_up"]
    assert site["bytes_up"] == pytest.approx(told, rel=0.01)
    assert site["bytes_down"] == pytest.approx(4 * cost["bytes_down"], rel=0.05)
