"""The page of a site's examination: escaped, self-contained, and honest about what is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedtl.report.plot_site import MOST_CLASSES, plot_classes, plot_pixels
from fedtl.report.site_page import (
    MOST_LINES,
    Chapter,
    Listed,
    render_site_page,
    verdict,
    write_site_page,
)
from fedtl.types import Finding

EVIL = "<img src=x onerror=alert(1)>\x1b[2J\udcff"
OK = Finding("data", "ok", "80 images")
NOTE = Finding("copies", "note", "one", "Remove it.")
BAD = Finding("clock", "broken", "1970", "Set it.")


def test_the_verdict_counts_what_must_be_mended() -> None:
    assert verdict([Chapter("Data", (OK,))]) == "Nothing is broken."
    assert verdict([Chapter("Data", (OK, NOTE))]) == "Nothing is broken, 1 note."
    chapters = [Chapter("Data", (OK, NOTE, NOTE)), Chapter("Machine", (BAD,))]
    assert verdict(chapters) == "1 thing must be mended, 2 notes."


def test_whatever_comes_from_the_data_is_escaped(tmp_path: Path) -> None:
    finding = Finding(EVIL, "broken", EVIL, EVIL)
    plots = (
        plot_classes([EVIL, "b"], [1, 2], [3, 4]),
        plot_pixels(np.full((3, 4), 0.25), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), EVIL),
    )
    chapter = Chapter("Data", (finding,), plots, (Listed(EVIL, (EVIL,)),))
    write_site_page(EVIL, [chapter], tmp_path / "check.html")
    page = (tmp_path / "check.html").read_text("utf-8")
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;img src=x" in page
    assert "Content-Security-Policy" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")
    assert (tmp_path / "check.html").stat().st_mode & 0o777 == 0o600


def test_state_and_cure_of_every_finding_are_on_the_page() -> None:
    page = render_site_page("north", [Chapter("Data", (OK, NOTE)), Chapter("Machine", (BAD,))])
    assert [page.count(f"badge {state}") for state in ("ok", "note", "broken")] == [1, 1, 1]
    assert "Remove it." in page
    assert "Set it." in page


def test_a_long_list_is_cut_and_says_so() -> None:
    lines = tuple(f"line-{n}" for n in range(MOST_LINES + 7))
    page = render_site_page("north", [Chapter("Data", (OK,), (), (Listed("Many", lines),))])
    assert "And 7 more." in page
    assert f"line-{MOST_LINES}" not in page


def test_of_many_classes_the_largest_and_smallest_are_drawn() -> None:
    sizes = list(range(100, 100 + MOST_CLASSES + 10))
    plot = plot_classes([f"c{n}" for n in sizes], sizes, [0] * len(sizes))
    assert "10 classes between these are not drawn" in plot.meaning
    assert ">c100<" in plot.svg
    assert f">c{sizes[-1]}<" in plot.svg
    assert ">c120<" not in plot.svg


def test_grey_images_are_one_line_and_coloured_ones_three() -> None:
    even = np.full((3, 8), 1 / 8)
    grey = plot_pixels(even, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "t").svg
    even[0] = even[0][::-1] * np.linspace(0, 2, 8)
    colour = plot_pixels(even, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "t").svg
    assert ">grey<" in grey
    assert all(f">{name}<" in colour for name in ("red", "green", "blue"))
