"""The summary at the end of a run: everything a coordinator asks first, on 80 plain columns."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from sample import sample, stopped, without_evaluation, without_privacy

from fedtl.report.result import RunResult
from fedtl.report.table import MOST_ROWS, print_summary
from fedtl.report.words import percent

FOLDER = Path("runs/a-rather-long-name-of-a-run-that-someone-chose-to-give-it/20310504-123000")


def printed(result: RunResult, *, terminal: bool = False) -> str:
    out = io.StringIO()
    print_summary(result, Console(file=out, width=80, force_terminal=terminal), FOLDER)
    return out.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    """Return the words of each row by the row's first word."""
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_every_number_of_a_site_is_in_its_row() -> None:
    result = sample()
    table = rows(printed(result))
    for site in result.sites:
        words = " ".join(table[site.name])
        for expected in (str(site.train), str(site.test), percent(site.accuracy)):
            assert expected in words
        assert words.endswith(" kB")


def test_the_total_row_adds_up() -> None:
    result = sample(sites=7)
    total = rows(printed(result))["7"]
    assert total[1] == "sites"
    assert int(total[2].replace(",", "")) == sum(s.train for s in result.sites)
    assert int(total[3].replace(",", "")) == sum(s.test for s in result.sites)


def test_only_the_worst_site_is_marked() -> None:
    result = sample()
    worst = min(result.sites, key=lambda s: s.accuracy)
    marked = [line for line in printed(result).splitlines() if " * " in line]
    assert [line.split()[0] for line in marked] == [worst.name]


def test_comparisons_guarantee_and_folder_are_said() -> None:
    result = sample()
    text = printed(result)
    for share in (result.accuracy, result.accuracy_without_privacy, result.accuracy_local_own):
        assert percent(share) in text
    assert result.guarantee in " ".join(text.split())
    assert f"Results: {FOLDER}" in text.splitlines()  # in one piece, to be copied


def test_plain_text_fits_80_columns_without_escape_codes() -> None:
    for result in (
        sample(),
        sample(sites=200),
        stopped(sample(sites=1)),
        without_privacy(sample()),
    ):
        lines = printed(result).splitlines()
        assert all(len(line) <= 80 for line in lines if not line.startswith("Results:"))
        assert "\x1b" not in "".join(lines)
    assert "\x1b[" in printed(sample(), terminal=True)


def test_what_was_not_measured_is_a_dash() -> None:
    table = rows(printed(without_evaluation(without_privacy(sample()))))
    assert table["site-02"][3:7] == ["-"] * 4


def test_of_many_sites_the_worst_and_the_best_are_listed() -> None:
    result = sample(sites=1000)
    ranked = sorted(result.sites, key=lambda s: (s.accuracy, s.name))
    table = rows(printed(result))
    assert sum(name.startswith("site-") for name in table) == MOST_ROWS
    assert {ranked[0].name, ranked[-1].name} <= table.keys()
    assert "(970 more)" in printed(result)


def test_a_hostile_name_neither_paints_nor_moves_the_cursor() -> None:
    result = sample()
    names = ["[bold red]a[/]", "\x1b[2Jb", "[/nonsense]", "c\r\nd", "\u202eevil"]
    sites = [replace(s, name=n) for s, n in zip(result.sites, names, strict=True)]
    text = printed(replace(result, sites=sites, problems=["\x1b]0;title\x07"]))
    assert "[bold red]a" in text
    assert "[/nonsense]" in text
    assert not set(text) & set("\x1b\r\x07\u202e")
