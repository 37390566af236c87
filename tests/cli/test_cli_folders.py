"""Commands around a run: predict, report, features, backbones, doctor."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedtl.cli import main
from fedtl.data import open_data


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of real scans that the run has not necessarily seen."""
    folder, digits = tmp_path / "scans", open_data("digits")
    folder.mkdir()
    for row in range(5):
        pixels = np.asarray(digits.source.read(row).pixels, np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    (folder / "notes.txt").write_text("not a picture, and not asked about")
    return folder


def test_predict_answers_for_a_file_in_json(
    warm: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", str(warm), str(images / "0.png"), "--json", "--top", "3"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["image"] == str(images / "0.png")
    assert next(iter(answer["probabilities"])) == answer["label"]
    likely = list(answer["probabilities"].values())
    assert (len(likely), likely) == (3, sorted(likely, reverse=True))
    assert likely[0] == answer["probability"]


def test_predict_answers_for_a_folder_and_lists_what_it_cannot_read(
    warm: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:40])
    os.mkfifo(images / "pipe")
    given = [str(images), str(images / "missing.png"), str(images / "pipe")]
    assert main(["predict", str(warm), *given]) == 1
    said = capsys.readouterr()
    answered = [line.split(":")[0] for line in said.out.splitlines()]
    assert answered == [str(images / f"{row}.png") for row in (0, 1, 3, 4)]
    damaged, missing, pipe = said.err.splitlines()
    assert damaged.startswith(f"{images / '2.png'}: The file is damaged")
    assert missing == f"{images / 'missing.png'}: The file does not exist."
    assert pipe == f"{images / 'pipe'}: The file is not an ordinary file."


def test_predict_in_json_still_tells_of_what_it_could_not_read(
    warm: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", str(warm), str(images / "notes.txt"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["predictions"] == []
    assert "is not a PNG" in told["unreadable"][0]["reason"]


def test_a_name_meant_for_the_terminal_is_made_harmless(
    warm: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(images / "0.png", images / "[red]\x1b[2J.png")
    assert main(["predict", str(warm), str(images / "[red]\x1b[2J.png")]) == 0
    assert "[red]\N{REPLACEMENT CHARACTER}[2J.png: " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "report"])
def test_a_folder_without_a_run_is_named(
    cold: Path, capsys: pytest.CaptureFixture[str], command: str
):
    assert main([command, ".", *(["x.png"] if command == "predict" else [])]) == 2
    assert "'.'" in capsys.readouterr().err


def test_predict_in_a_folder_without_pictures(
    warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(warm), str(tmp_path / "empty")]) == 2
    assert "holds no pictures" in capsys.readouterr().err


def test_report_writes_the_page_again_and_prints_the_summary(
    warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = shutil.copytree(warm, tmp_path / "copy")
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "Global head, 3 of 3 rounds" in capsys.readouterr().out
    assert (run / "report.html").stat().st_size > 1000
    (run / "report.json").write_text("{}")
    assert main(["report", str(run)]) == 2
    assert "report.json" in capsys.readouterr().err


def test_features_are_made_once_and_the_transform_is_told(
    warm: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    for kind in ("a", "b"):
        (images / kind).mkdir()
    for at, path in enumerate(sorted(images.glob("*.png"))):
        path.rename(images / "ab"[at % 2] / path.name)
    (images / "notes.txt").unlink()
    shutil.copytree(images, "prune")
    arguments = ["--image-size", "32", "--quiet", "--json"]
    assert main(["features", str(images), *arguments]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["pictures"], first["computed"] + first["cached"]) == (5, 5)
    assert sum(first["notes"].values()) == 5
    assert main(["features", "./prune", *arguments]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["computed"], again["cached"], again["key"]) == (0, 5, first["key"])
    assert main(["features", "./prune", *arguments[:3]]) == 0
    assert "enlarged from 8x8 to 32x32" in capsys.readouterr().out


def test_prune_keeps_what_it_is_told_and_usage_counts_it(
    cold: Path, capsys: pytest.CaptureFixture[str]
):
    from fedtl.features import FeatureCache

    cache = FeatureCache("abc", 4)
    cache.add(np.zeros((1, 32), np.uint8), notes=["as it was"], x=np.ones((1, 4), np.float32))

    def held() -> int:
        assert main(["features", "usage", "--json"]) == 0
        return int(json.loads(capsys.readouterr().out)["n_bytes"])

    before = held()
    assert before > 0
    assert main(["features", "prune", "--keep-gb", "1"]) == 0
    assert capsys.readouterr().out == "0 B freed.\n"
    assert held() == before
    assert main(["features", "prune", "--all", "--keep-gb", "1"]) == 2
    assert main(["features", "prune"]) == 0
    assert capsys.readouterr().out == f"{before} B freed.\n"
    assert held() == 0
    assert main(["features", "usage"]) == 0
    assert "of at most 20.0 GB" in capsys.readouterr().out


def test_backbones_at_hand_and_by_name(warm: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["backbones", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (stored,) = found["store"]
    assert (stored["name"], stored["licence"]) == ("tf_efficientnet_lite0", "Apache-2.0")
    assert {"installed": True}.items() <= found["packages"][0].items()
    assert main(["backbones", "efficientnet_lite?"]) == 0
    text = capsys.readouterr().out
    assert stored["sha256"][:12] in text
    assert "efficientnet_lite0" in text.split("timm models that match")[1]


def test_the_doctor_finds_a_healthy_machine(shell, finished):  # type: ignore[no-untyped-def]
    done = shell("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.out)}
    assert done.code == 0, done.out
    assert findings["timm import"]["state"] == "ok"
    assert findings["flwr telemetry"]["what"] == "off"
    assert findings["weights at hand"]["what"] == "tf_efficientnet_lite0"


def test_the_doctor_names_what_is_broken_and_its_cure(
    cold: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (cold / "file").write_text("in the way")
    monkeypatch.setenv("FEDTL_HOME", str(cold / "file" / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    broken = [line for line in said.splitlines() if line.startswith("broken")]
    assert [line.split()[1] for line in broken] == ["cache"]
    assert "set FEDTL_HOME to a folder you may write to" in said
    assert "'4096' is more than the" in said
    assert "unset OMP_NUM_THREADS" in said
    assert "export FLWR_TELEMETRY_ENABLED=0" in said


def test_python_dash_m_and_the_script_are_the_same_command(shell):  # type: ignore[no-untyped-def]
    script = Path(shutil.which("fedtl", path=os.path.dirname(shell.command()[0])) or "fedtl")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert by_script.stdout == shell("--version").out
