"""A study's files, table and figures: complete, right, and safe whatever the labels are."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pyarrow import parquet
from rich.console import Console
from studies import invented

from fedtl.report.study_files import write_csv, write_parquet, write_tex
from fedtl.report.study_page import write_study
from fedtl.report.study_plots import draw_study
from fedtl.report.study_result import Scale, StudyResult
from fedtl.report.study_stats import table_of
from fedtl.report.study_table import print_study

ALL = {"accuracy-per-round", "accuracy-per-byte", "accuracy-per-second", "worst-site", "by-alpha"}
SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>&$x^2_%"


def printed(result: StudyResult, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_study(result, console, Path("study"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_parquet_has_a_row_for_each_cell_and_round(tmp_path: Path) -> None:
    result = invented(private=True)
    write_parquet(result, tmp_path / "results.parquet")
    rows = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == 2 * 5 * (6 + 6 + 1)
    cell = result.cells[0]
    mine = [
        r for r in rows if (r["partition"], r["strategy"], r["seed"]) == ("alpha 0.1", "fedavg", 1)
    ]
    assert [r["accuracy"] for r in mine] == [r.accuracy for r in cell.rounds]
    assert [r["epsilon"] for r in mine] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert mine[-1]["bytes_up"] == 3000
    assert mine[-1]["worst_site"] == "site-1"
    write_parquet(replace(result, cells=()), tmp_path / "results.parquet")
    assert parquet.read_table(tmp_path / "results.parquet").num_rows == 0


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    result = invented(seeds=(1,))
    blind = [
        replace(c, rounds=tuple(replace(r, accuracy=None, worst_accuracy=None) for r in c.rounds))
        for c in result.cells
    ]
    result = replace(result, cells=tuple(blind))
    write_parquet(result, tmp_path / "results.parquet")
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table["accuracy"].null_count == table["epsilon"].null_count == table.num_rows
    assert draw_study(result) == []
    assert "seeds" in printed(result)


def test_csv_is_unrounded_and_tex_obeys_no_label(tmp_path: Path) -> None:
    result = invented(labels=("fedavg", EVIL, "fed3r"))
    rows = table_of(result)
    write_csv(result, rows, tmp_path / "table.csv")
    read = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [r["strategy"] for r in read] == ["fedavg", EVIL, "fed3r"] * 2
    versus = rows[1].versus
    assert versus is not None
    assert float(read[1]["p_holm"]) == versus.p_holm
    assert float(read[1]["difference_mean"]) == versus.difference.mean
    assert read[0]["p_t"] == ""
    write_tex(result, rows, tmp_path / "table.tex")
    tex = (tmp_path / "table.tex").read_text()
    assert r"$<$script$>$\&\$x\textasciicircum{}2\_\%" in tex
    assert tex.count(r"\midrule") == 2
    lines = [line for line in tex.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{(l+)(r+)\}", tex)
    assert columns is not None
    cells = len(columns[1] + columns[2])
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {cells - 1}


def test_the_screen_shows_means_tests_and_what_they_are_worth() -> None:
    failed = {"x, seed 2": "it broke", "y, seed 1": "it bent", "x, seed 1": "it broke"}
    result = replace(invented(seeds=(1, 2, 3)), failed=failed, wanted=20)
    said = printed(result)
    row = next(line for line in said.splitlines() if "fed3r" in line)
    assert re.search(r"\d\d\.\d ± \d\.\d .*[+-]\d+\.\d ± \d\.\d", row)
    assert "The power is low" in said
    assert "2 cells of 20 missing" in said
    assert "Failed: x, seed 1 and 1 cell more: it broke\nFailed: y, seed 1: it bent\n" in said
    assert "epsilon" not in said
    assert "epsilon" in printed(invented(private=True))


def test_a_narrow_screen_drops_columns_and_cuts_none() -> None:
    wide, narrow = (printed(invented(seeds=(1, 2, 3)), width) for width in (140, 72))
    assert "(ranks)" in wide
    assert "(ranks)" not in narrow
    assert "(Holm)" in narrow
    assert "…" not in narrow


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (invented(), ALL),
        (invented(private=True), {*ALL, "accuracy-per-epsilon"}),
        (invented(partitions=(0.5,)), ALL - {"by-alpha"}),
        (invented(seeds=(1,), rounds=1), ALL),
        (invented(extra={"privacy": ("none", "eps 8"), "attack": ("no", "yes")}, seeds=(1,)), ALL),
        (invented(labels=(*"abcdefghijklmnop", EVIL), partitions=(0.1, 1.0), seeds=(1,)), ALL),
    ],
    ids=["usual", "private", "one partition", "one point", "many settings", "many methods"],
)
def test_a_study_has_the_figures_it_has_numbers_for(
    result: StudyResult, expected: set[str]
) -> None:
    drawings = draw_study(result)
    assert {d.key for d in drawings} == expected
    for drawing in drawings:
        plot = drawing.plot()
        root = ElementTree.fromstring(plot.svg)
        texts = {"".join(t.itertext()).strip() for t in root.iter(SVG + "text")}
        assert any("fedavg" in t or t.endswith("b") for t in texts)
        assert not any("mathdefault" in t for t in texts)
        assert "<script" not in plot.svg
        assert plot.meaning
    assert drawings[0].png().startswith(b"\x89PNG")


def test_figures_say_which_is_best_and_which_minds_the_skew() -> None:
    by_key = {d.key: d for d in draw_study(invented())}
    assert "fedadam ends highest on average" in by_key["accuracy-per-round"].title
    assert "done after one evaluation" in by_key["accuracy-per-round"].meaning
    # in percent, less a point for each power of ten of alpha
    assert re.search(r"fedavg loses most, 1\.0 points", by_key["by-alpha"].title)


def test_no_curve_leaves_its_panel() -> None:
    """The panels share their y axis, and the first one need not have the widest range."""
    from matplotlib.figure import Figure

    result = invented(partitions=(1.0, 1e-30))  # the second is lower by 30 points
    assert len(result.groups()) == 2
    for drawing in draw_study(result):
        figure = Figure(figsize=(drawing.width, drawing.height))
        drawing.draw(figure)
        for axes in figure.axes:
            low, high = axes.get_ylim()
            for line in axes.lines:
                assert all(min(low, high) <= y <= max(low, high) for y in line.get_ydata())


def test_bad_sites_are_a_scale_with_a_panel_for_each_attack() -> None:
    attacks = ("none", "flip 0.1", "flip 0.3", "alie 0.2")
    result = invented(partitions=(0.5,), extra={"attack": attacks}, seeds=(1, 2))
    points = {
        "none": (("sign_flip", 0.0), ("alie", 0.0)),
        "flip 0.1": (("sign_flip", 0.1),),
        "flip 0.3": (("sign_flip", 0.3),),
        "alie 0.2": (("alie", 0.2),),
    }
    result = replace(result, scales=(Scale("attack", "share", points),))
    (drawing,) = [d for d in draw_study(result) if d.key == "by-share"]
    root = ElementTree.fromstring(drawing.plot().svg)
    texts = ["".join(t.itertext()).strip() for t in root.iter(SVG + "text")]
    assert {"sign_flip", "alie", "10", "20", "30"} <= set(texts)
    assert drawing.title.startswith("Bad sites: fedavg loses most, 0.0 points")


def test_the_round_that_a_strategy_keeps_is_the_result() -> None:
    result = invented(seeds=(1, 2))
    cell = result.cells[0]
    kept = replace(cell, rounds=tuple(replace(r, kept=r.round == 3) for r in cell.rounds))
    assert cell.last is cell.rounds[-1]
    assert kept.last is not None
    assert kept.last.round == 3
    changed = replace(result, cells=(kept, *result.cells[1:]))
    row, before = table_of(changed)[0], table_of(result)[0]
    assert row.n_bytes == before.n_bytes
    assert row.accuracy != before.accuracy


def test_a_study_lies_in_its_folder_complete_and_without_scripts(tmp_path: Path) -> None:
    result = replace(invented(labels=("fedavg", EVIL, "fed3r")), failed={EVIL: f"it {EVIL} broke"})
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "old.png").write_bytes(b"of an earlier time")
    page = write_study(result, tmp_path)
    names = {f"{key}.{kind}" for key in ALL for kind in ("svg", "png")}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {
        *("plots", "results.parquet", "table.csv", "table.tex", "report.html")
    }
    text = page.read_text()
    assert text.count("<svg") == len(ALL)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "1 cell failed" in text
    assert "signed-rank" in text
    ElementTree.fromstring((tmp_path / "plots" / "by-alpha.svg").read_text())
