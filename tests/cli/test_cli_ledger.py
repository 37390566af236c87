"""``fedtl ledger``: what was spent, whether the record is whole, and what a recipe would cost."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtl.cli import main
from fedtl.launch.plans import plan_of
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent, from_json
from fedtl.privacy.ledger import DataSet, Ledger, RequestKey
from fedtl.recipe import load_recipe

EVENT = GaussianEvent(4.0, 2)


def dataset(start: int, stop: int) -> DataSet:
    rows = np.zeros((stop - start, 32), np.uint8)
    rows[:, 0] = np.arange(start, stop)
    return DataSet.of(rows)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site's folder whose ledger has two data sets that share a record."""
    folder = tmp_path / "north"
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        for round_, data in enumerate([dataset(0, 5), dataset(0, 5), dataset(4, 8)]):
            ledger.charge(RequestKey("run", round_, "train", "north"), data, EVENT)
        ledger.keep_reply(RequestKey("run", 2, "train", "north"), b"reply")
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["ledger", *arguments]) == code
    said = capsys.readouterr()
    assert "Error" not in said.err
    return said.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ledger", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_plan_charges_held_out_records_with_metrics_and_training_records_with_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trained, held_out = dataset(0, 30), dataset(40, 50)
    with Ledger.open(tmp_path / "site" / "ledger.sqlite") as ledger:
        ledger.charge(RequestKey("run", 1, "train", "site"), trained, EVENT)
        ledger.charge(RequestKey("run", 1, "evaluate", "site"), held_out, EVENT)
    file = tmp_path / "r.toml"
    file.write_text("[train]\nrounds = 4\n[privacy]\nmetrics = 'noised'\nepsilon = 2\n")
    rows = json.loads(told(capsys, "plan", str(file), str(tmp_path / "site"), "--json"))
    assert {row["data_set"]: row["releases"] for row in rows} == {
        trained.fingerprint[:12]: 4 * 5,
        held_out.fingerprint[:12]: 4,
    }
    assert [row["cost"] for row in rows] == pytest.approx([2.0, 2.0], abs=1e-6)
    file.write_text("[train]\nrounds = 4\n")
    rows = json.loads(told(capsys, "plan", str(file), str(tmp_path / "site"), "--json"))
    assert [row["cost"] > 0 for row in rows] == [True, False]


def test_show_says_what_was_spent_on_what(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    rows = json.loads(told(capsys, "show", str(site), "--json", "--delta", "1e-6"))
    cost = epsilon_of(GaussianEvent(4.0, 6), 1e-6)  # of the record in both
    assert [(r["site"], r["unit"], r["units"], r["requests"], r["releases"]) for r in rows] == [
        ("north", "example", 5, 2, 6),
        ("north", "example", 4, 1, 6),
    ]
    assert [r["epsilon"] for r in rows] == [cost, cost]
    assert [r["delta"] for r in rows] == [1e-6, 1e-6]
    assert from_json(json.dumps(rows[0]["event"])) == GaussianEvent(4.0, 6)
    table = told(capsys, "show", str(site / "ledger.sqlite"))
    shown = f"{np.ceil(100 * epsilon_of(GaussianEvent(4.0, 6), 1e-5)) / 100:.2f}"
    assert [line.split()[6] for line in table.splitlines()[2:]] == [shown, shown]


def test_show_draws_spend_over_time(site: Path, capsys: pytest.CaptureFixture[str]):
    picture = site / "out" / "spend.svg"
    told(capsys, "show", str(site), "--plot", str(picture))
    svg = picture.read_text()
    assert ET.fromstring(svg).tag.endswith("svg")
    for data in (dataset(0, 5), dataset(4, 8)):
        assert f"north {data.fingerprint[:8]}" in svg
    assert "epsilon at delta 1e-05" in svg


@pytest.mark.parametrize("writable", [True, False])
def test_looking_changes_nothing_and_needs_no_right_to_write(
    site: Path, capsys: pytest.CaptureFixture[str], writable: bool
):
    """A folder in the way of SQLite's own files stands for a folder that cannot be written."""
    if not writable:
        (site / "ledger.sqlite-shm").mkdir()
    before = (site / "ledger.sqlite").read_bytes()
    for command in ("show", "verify", "export"):
        told(capsys, command, str(site))
    assert (site / "ledger.sqlite").read_bytes() == before


def test_verify_says_ok_with_the_last_hash(site: Path, capsys: pytest.CaptureFixture[str]):
    with Ledger.open(site / "ledger.sqlite", read_only=True) as ledger:
        last = ledger.verify().hash
    assert told(capsys, "verify", str(site)) == f"OK: north: 4 entries, last {last}\n"
    (found,) = json.loads(told(capsys, "verify", str(site), "--json"))
    assert (found["whole"], found["entries"], found["hash"]) == (True, 4, last)


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda data: data.replace(b'"round":1', b'"round":7'), "Entry 2 of the ledger was"),
        (lambda data: data[:5000], "is damaged"),
        (lambda data: b"", "is damaged"),
    ],
)
def test_verify_names_the_first_bad_entry_and_fails(
    site: Path, capsys: pytest.CaptureFixture[str], forge: Any, said: str
):
    file = site / "ledger.sqlite"
    file.write_bytes(forge(file.read_bytes()))
    line = told(capsys, "verify", str(site), code=1)
    assert line.startswith("BAD: north: ")
    assert said in line
    assert said in refused(capsys, "show", str(site))
    assert said in refused(capsys, "export", str(site))


def test_export_is_one_json_object_per_line(site: Path, capsys: pytest.CaptureFixture[str]):
    lines = [json.loads(line) for line in told(capsys, "export", str(site)).splitlines()]
    assert [(x["site"], x["number"], x["kind"]) for x in lines] == [
        *(("north", n, "charge") for n in (1, 2, 3)),
        ("north", 4, "reply"),
    ]
    assert from_json(json.dumps(lines[0]["event"])) == EVENT


def test_plan_says_what_a_recipe_would_cost_and_whether_it_may(
    site: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = site / "my.toml"
    recipe.write_text("[privacy]\nepsilon = 2.0\n")
    rows = json.loads(told(capsys, "plan", str(recipe), str(site), "--json"))
    now = epsilon_of(GaussianEvent(4.0, 6), 1e-5)
    assert [r["now"] for r in rows] == [now, now]
    alone = plan_of(load_recipe(recipe), mean_size=5.0, sites=5)
    assert alone is not None
    assert [r["cost"] for r in rows] == [epsilon_of(alone.event(), 1e-5)] * 2
    assert rows[0]["cost"] == pytest.approx(2.0, abs=1e-6)
    assert all(max(now, 2.0) < r["after"] < now + 2.0 for r in rows)
    assert {r["allowed"] for r in rows} == {None}
    after = rows[0]["after"]
    told(capsys, "plan", str(recipe), str(site), "--budget", f"{after + 0.01}")
    assert "NO" in told(capsys, "plan", str(recipe), str(site), "--budget", f"{now}", code=1)
    # within a period that begins after the charges, they do not count
    small = ("--budget", f"{now}", "--days", "1e-9", "--json")
    rows = json.loads(told(capsys, "plan", str(recipe), str(site), *small))
    assert {(r["now"], r["allowed"]) for r in rows} == {(0.0, True)}


@pytest.mark.parametrize(
    ("recipe", "more", "said"),
    [
        ("[privacy]\nenabled = false\n", (), "has no price"),
        ("", ("--days", "3"), "--budget"),
        ("", ("--budget", "-1"), "epsilon = -1.0 of a budget"),
        ("", ("--delta", "2"), "delta = 2"),
    ],
)
def test_plans_without_a_price_are_refused(
    site: Path, capsys: pytest.CaptureFixture[str], recipe: str, more: tuple[str, ...], said: str
):
    (site / "my.toml").write_text(recipe)
    assert said in refused(capsys, "plan", str(site / "my.toml"), str(site), *more)


def test_where_there_is_no_ledger_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("no ledger, but some other file that somebody names")
    for command in (("show",), ("export",)):
        for place in (tmp_path, tmp_path / "none"):
            assert "There is no ledger in" in refused(capsys, *command, str(place))
        assert "is damaged" in refused(capsys, *command, str(tmp_path / "file"))
    assert not list(tmp_path.glob("none*"))


def test_a_newer_ledger_is_explained(site: Path, capsys: pytest.CaptureFixture[str]):
    database = sqlite3.connect(site / "ledger.sqlite")
    database.executescript("DROP TABLE about; PRAGMA user_version = 9")
    database.close()
    assert "has version 9" in refused(capsys, "show", str(site))
    assert "Update fedtl" in told(capsys, "verify", str(site), code=1)


def test_a_run_folder_stands_for_all_its_sites(
    warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = json.loads((warm / "report.json").read_text())
    rows = json.loads(told(capsys, "show", str(warm), "--json"))
    assert {r["site"]: r["units"] for r in rows} == {s["name"]: s["train"] for s in report["sites"]}
    assert [r["epsilon"] for r in rows] == pytest.approx([s["epsilon"] for s in report["sites"]])
    assert told(capsys, "verify", str(warm)).count("OK: ") == len(report["sites"])
    copy = tmp_path / "copy"
    shutil.copytree(warm, copy)
    victim = rows[1]["site"]
    file = copy / "sites" / victim / "ledger.sqlite"
    file.write_bytes(file.read_bytes().replace(b"gaussian", b"gaussiam"))
    lines = told(capsys, "verify", str(copy), code=1).splitlines()
    assert [line.split(":")[0] for line in lines].count("BAD") == 1
    assert any(re.match(f"BAD: {victim}: Entry 1 ", line) for line in lines)


def test_an_unreadable_ledger_is_explained(site: Path, capsys: pytest.CaptureFixture[str]):
    """A folder in its place cannot be read even by root, who may read every file."""
    (site / "ledger.sqlite").rename(site / "moved.sqlite")
    (site / "ledger.sqlite").mkdir()
    assert "ledger.sqlite" in refused(capsys, "show", str(site / "ledger.sqlite"))


def test_help_is_quick_and_shows_examples():
    code = (
        "import sys; from fedtl.cli import main; code = main(['ledger', '--help']); "
        "print('LOADED', *[m for m in ('numpy', 'torch', 'sqlite3', 'flwr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fedtl ledger plan my.toml" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED"
