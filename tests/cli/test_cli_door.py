"""What a user sees before anything runs, and when it does not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedtl.cli import main

HEAVY = {"torch", "flwr", "timm", "numpy", "pydantic", "onnxruntime", "opacus", "PIL", "matplotlib"}


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must end as a user's mistake, and return its one paragraph."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("simulate", "--help"), ("features", "-h"), ("recipe", "-h"), ("--version",)],
)
def test_help_answers_without_importing_anything_heavy(arguments: tuple[str, ...]):
    code = (
        "import sys; from fedtl.cli import main; code = main(sys.argv[1:]); "
        "print('LOADED', *sorted(m for m in sys.modules if '.' not in m)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    shown, _, loaded = done.stdout.rpartition("LOADED")
    assert not HEAVY & set(loaded.split())
    assert "fedtl" in shown
    if arguments[0] == "simulate":
        assert "fedtl simulate --resume" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy", "fedavgg"], "Did you mean 'fedavg'?"),
        (["--strategy", "fedavg", "--set", "strategy.options.etta=1"], "no option 'etta'"),
        (["--strategy", "nowhere.py:Mine"], "no strategy file"),
        (["--epsilon", "-1"], "privacy.epsilon = -1.0"),
        (["--epsilon", "inf"], "epsilon = inf"),
        (["--data", "missing/folder"], "'missing/folder'"),
        (["--data", "digts"], "Did you mean 'digits'?"),
        (["--sites", "900"], "too few for 900 sites"),
        (["--via", "carrier-pigeon"], "transport.via"),
        (["--set", "train.round=3"], "Did you mean 'rounds'?"),
        (["--set", "tran.rounds=3"], "Did you mean 'train'?"),
        (["missing.toml"], "no recipe 'missing.toml'"),
        (["--resume", "."], "not a run folder"),
        (["--resume", "missing"], "not a run folder"),
    ],
)
def test_a_mistake_is_one_paragraph_with_a_cure_and_leaves_no_folder(
    cold: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    assert said in _fails(capsys, "simulate", *arguments)
    assert not [path for path in (cold / "work").rglob("*") if path.is_file()]


def test_an_unknown_backbone_names_the_nearest(cold: Path, capsys: pytest.CaptureFixture[str]):
    said = _fails(capsys, "simulate", "--backbone", "tf_efficientnet_lite00")
    assert "Did you mean 'tf_efficientnet_lite0'?" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not readable TOML"),
        ("[train]\nrouns = 3", "Did you mean 'rounds'?"),
        ("[train]\nrounds = 'many'", "train.rounds"),
        ("[strategy]\nname = 'fedavgg'", "Did you mean 'fedavg'?"),
        ("[data]\nsource = 'photos/'", "photos"),
        ("[backbone]\nname = 'resnet188'", "Did you mean 'resnet"),
        ("[backbone]\nweights = 'w.safetensors'", "does not exist"),
    ],
)
def test_recipe_check_finds_what_simulate_would_refuse(
    cold: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
):
    Path("r.toml").write_text(text)
    assert said in _fails(capsys, "recipe", "check", "r.toml")


def test_a_good_recipe_is_ok(cold: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["recipe", "show"]) == 0
    Path("r.toml").write_text(capsys.readouterr().out)
    assert main(["recipe", "check", "r.toml"]) == 0
    assert capsys.readouterr().out == "OK: r.toml (digits, 5 sites)\n"


def test_an_unwritable_cache_says_which_folder_and_what_to_do(
    cold: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (cold / "file").write_text("a file is in the way")
    monkeypatch.setenv("FEDTL_HOME", str(cold / "file" / "cache"))
    said = _fails(capsys, "features", "digits", "--quiet")
    assert str(cold / "file" / "cache") in said
    assert "FEDTL_HOME" in said


def test_an_unexpected_failure_is_an_apology_and_its_traceback_is_kept(
    cold: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # a damaged installation: a module of the library that cannot be imported
    monkeypatch.setitem(sys.modules, "fedtl.recipe", None)
    assert main(["recipe", "show"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Sorry, something failed that should not: ModuleNotFoundError:")
    (log,) = (cold / "home" / "logs").iterdir()
    assert str(log) in said
    assert "Traceback (most recent call last)" in log.read_text()
    assert "Traceback" not in said
    monkeypatch.setenv("FEDTL_DEBUG", "1")
    with pytest.raises(ModuleNotFoundError):
        main(["recipe", "show"])


def test_a_reader_that_goes_away_hears_no_complaint(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "fedtl", "recipe", "show"],
        env={**os.environ, "FEDTL_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert said == ""
    assert not list(tmp_path.iterdir())
