"""``fedtl audit``: what it prints, writes and refuses, and its code for a broken promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedtl.cli import main
from fedtl.train import fit

FEW = ("--canaries", "600", "--shadows", "16", "--quiet")
SMALL = ("--set", "data.limit=160", "--set", "backbone.image_size=32", "--set", "train.rounds=2")


def test_a_runs_audit_shows_claim_and_bound_and_is_kept_with_the_run(
    warm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(warm), *FEW]) == 0
    said = capsys.readouterr().out
    assert "Claimed epsilon                       8.00 at delta 1e-05" in said
    assert "The promise held: no attack proved more than epsilon" in said
    assert f"Audit: {warm / 'audit.html'}" in said
    kept = json.loads((warm / "audit.json").read_text())
    assert not kept["broken"]
    certified = kept["certified"]
    assert 0 < certified["one_run"] < certified["independent"] <= kept["epsilon"] <= 8
    assert kept["inversion"]["raw_found"] == 1.0
    assert kept["inversion"]["raw_error"] < 1e-6
    assert kept["inversion"]["released_found"] == 0.0
    assert 0.4 < kept["membership"]["auc"] < 0.8
    page = (warm / "audit.html").read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "claimed: 8.00" in page


def test_without_privacy_the_audit_says_what_an_attacker_gets(
    warm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*FEW, *SMALL, "--set", "privacy.enabled=false", "--out", "open", "--json"]
    assert main(["audit", *arguments]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept == json.loads(Path("open/audit.json").read_text())
    assert kept["epsilon"] is None
    assert kept["certified"]["one_run"] > 3
    assert kept["inversion"]["released_found"] == 1.0
    assert kept["membership"]["auc"] > 0.7
    page = Path("open/audit.html").read_text()
    assert "No privacy is promised, and none is there: epsilon is at least" in page


def test_statistics_are_audited_by_their_canaries_alone(
    warm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *FEW, *SMALL, "--set", "strategy.name=fed3r", "--out", "stats"]) == 0
    assert "Membership and inversion" in capsys.readouterr().out
    kept = json.loads(Path("stats/audit.json").read_text())
    assert kept["mechanism"] == "statistics"
    assert kept["membership"] is None
    assert 0.5 < kept["certified"]["independent"] <= 8


def test_a_broken_promise_has_an_exit_code(
    warm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fit.add_normal

    def weak(out: Any, streams: Any, scale: float) -> None:
        real(out, streams, scale / 10)

    monkeypatch.setattr(fit, "add_normal", weak)
    assert main(["audit", str(warm), *FEW, "--out", "weak"]) == 1
    assert "THE PROMISE IS BROKEN: epsilon is at least" in capsys.readouterr().out
    assert json.loads(Path("weak/audit.json").read_text())["broken"] is True
    assert not (warm / "weak").exists()


def test_the_same_seed_finds_the_same(warm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for seed in ("3", "3", "4"):
        assert main(["audit", str(warm), *FEW, "--seed", seed, "--out", "x", "--json"]) == 0
        kept = json.loads(capsys.readouterr().out)
        found.append((kept["certified"], kept["membership"]["auc"]))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.toml"], "There is no recipe 'nowhere.toml'"),
        (["."], "is not a run folder"),
        (["--set", "head.kind=mlp"], "audits know the gradients of linear heads only"),
        (["--canaries", "99"], "99"),
        (["--shadows", "2"], "2"),
    ],
)
def test_what_cannot_be_audited_is_refused_with_the_reason(
    cold: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_run_is_audited_by_its_own_recipe_only(
    warm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(warm), "--set", "train.lr=1"]) == 2
    assert "would audit another recipe" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--help"]) == 0
    assert "fedtl audit runs/digits-" in capsys.readouterr().out
