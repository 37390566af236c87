"""The figures: right, small, self-contained, and drawn whatever a run looked like."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample import sample, stopped, without_evaluation, without_privacy

from fedtl.report.canvas import Plot
from fedtl.report.plot_confusion import MOST_CLASSES, mistakes, most_mistaken, plot_confusion
from fedtl.report.plot_cost import plot_bytes, plot_epsilon, plot_seconds
from fedtl.report.plot_data import plot_examples, plot_labels
from fedtl.report.plot_quality import plot_rounds, plot_sites
from fedtl.report.plots import SECTIONS, draw_all
from fedtl.report.result import RunResult
from fedtl.report.words import percent

ALL = {"rounds", "sites", "confusion", "epsilon", "labels", "examples", "seconds", "bytes"}
SVG = "{http://www.w3.org/2000/svg}"


def figures(result: RunResult) -> dict[str, Plot]:
    return {plot.key: plot for plots in draw_all(result).values() for plot in plots}


def texts(plot: Plot | None) -> list[str]:
    assert plot is not None
    return [
        "".join(t.itertext()).strip() for t in ElementTree.fromstring(plot.svg).iter(SVG + "text")
    ]


VARIANTS = {
    "usual": (sample(), ALL),
    "stopped after one round": (stopped(sample()), ALL),
    "stopped before the first round": (
        stopped(sample(), after=0),
        ALL - {"rounds", "epsilon", "bytes"},
    ),
    "without privacy": (without_privacy(sample()), ALL - {"epsilon"}),
    "without evaluation": (without_evaluation(sample()), ALL - {"rounds", "sites", "confusion"}),
    "one site": (sample(sites=1, rounds=1), ALL),
    "hundred sites, hundred classes": (sample(sites=100, classes=100), ALL),
    "every update failed": (sample(failing=1.0), ALL),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_has_the_figures_it_has_numbers_for(name: str) -> None:
    result, expected = VARIANTS[name]
    assert figures(result).keys() == expected


@settings(max_examples=8, deadline=None)
@given(
    sites=st.integers(1, 40),
    rounds=st.integers(1, 80),
    classes=st.integers(2, 40),
    failing=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_shape_of_run_is_drawn(sites: int, rounds: int, classes: int, failing: float) -> None:
    drawn = figures(sample(sites=sites, rounds=rounds, classes=classes, failing=failing))
    assert drawn.keys() == ALL
    for plot in drawn.values():
        assert ElementTree.fromstring(plot.svg).attrib["aria-label"] == plot.title


def test_figures_of_one_page_do_not_share_or_miss_an_id() -> None:
    pages = [plot.svg for plot in figures(sample()).values()]
    ids = Counter(found for svg in pages for found in re.findall(r'\bid="([^"]+)"', svg))
    assert max(ids.values()) == 1
    for svg in pages:
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {a or b for a, b in used} <= own


def test_figures_refer_to_nothing_outside() -> None:
    for plot in figures(sample(sites=100, classes=100)).values():
        links = re.findall(r'(?:href|src)="([^"]+)"', plot.svg)
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert "<script" not in plot.svg
        assert "<style" not in plot.svg


def test_the_same_run_gives_the_same_bytes() -> None:
    assert figures(sample()) == figures(sample())


def test_ten_thousand_sites_stay_small() -> None:
    drawn = figures(sample(sites=10_000, classes=100, rounds=2))
    assert max(len(plot.svg) for plot in drawn.values()) < 60_000


def test_ten_thousand_rounds_stay_small() -> None:
    base = sample(sites=2, rounds=2)
    history = [replace(base.history[i % 2], round=i + 1) for i in range(10_000)]
    drawn = figures(replace(base, rounds=10_000, history=history))
    assert max(len(plot.svg) for plot in drawn.values()) < 60_000


def test_bars_carry_the_sites_accuracies() -> None:
    result = sample()
    found = texts(plot_sites(result))
    assert {f"{100 * site.accuracy:.1f}" for site in result.sites} <= set(found)
    assert {site.name for site in result.sites} <= set(found)


def test_the_worst_site_is_the_title() -> None:
    result = sample(sites=60)
    worst = min(result.sites, key=lambda s: s.accuracy)
    plot = plot_sites(result)
    assert plot.title == f"Worst site: {worst.name}, {percent(worst.accuracy)}"


def test_the_number_of_sites_that_gain_is_counted() -> None:
    result = sample(sites=2)
    first, second = result.sites
    pair = [
        replace(first, accuracy=0.9, local_own=0.8),
        replace(second, accuracy=0.7, local_own=0.8),
    ]
    assert "at least as good at 1 of 2 sites" in plot_sites(replace(result, sites=pair)).meaning


def test_comparisons_are_named_only_when_they_were_made() -> None:
    everything, alone = texts(plot_rounds(sample())), texts(plot_rounds(stopped(sample())))
    assert {"without privacy", "local-only, own data"} <= set(everything)
    assert not {"without privacy", "local-only, own data"} & set(alone)


def test_the_labels_of_every_site_are_written_in_the_map() -> None:
    result = sample()
    shown = Counter(texts(plot_labels(result)))
    expected = Counter(str(n) for site in result.sites for n in site.labels if n)
    assert not expected - shown


def test_the_most_unusual_site_is_named() -> None:
    result = sample(sites=3, classes=3)
    mixes = [[10, 10, 10], [11, 9, 10], [0, 1, 29]]
    sites = [replace(s, labels=m) for s, m in zip(result.sites, mixes, strict=True)]
    assert plot_labels(replace(result, sites=sites)).title.endswith("97 % of site-03 is “2”")


def test_sites_that_keep_their_labels_to_themselves_are_left_out() -> None:
    result = sample()
    silent = [replace(site, labels=[]) for site in result.sites]
    assert plot_labels(replace(result, sites=silent)) is None
    assert "site-01" not in texts(
        plot_labels(replace(result, sites=[silent[0], *result.sites[1:]]))
    )


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_mistakes_are_those_a_plain_search_finds(seed: int, n: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 9, (n, n))
    cells = [(i, j, int(matrix[i, j])) for i in range(n) for j in range(n) if i != j]
    slow = sorted((c for c in cells if c[2]), key=lambda c: (-c[2], c[0], c[1]))
    assert mistakes(matrix, 5) == slow[:5]


def test_of_very_many_classes_the_mistaken_ones_are_shown() -> None:
    n = MOST_CLASSES + 50
    matrix = 5 * np.eye(n, dtype=int)
    matrix[n - 1, n - 2] = 3
    assert {n - 1, n - 2} <= set(most_mistaken(matrix))
    assert len(most_mistaken(matrix)) == MOST_CLASSES
    result = replace(sample(), classes=[f"class {i}" for i in range(n)], confusion=matrix.tolist())
    assert f"The {MOST_CLASSES} classes with most mistakes of {n}" in plot_confusion(result).meaning


def test_a_perfect_head_makes_no_mistake() -> None:
    perfect = replace(sample(classes=3), confusion=[[4, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert plot_confusion(perfect).title == "No mistake on 9 held-out examples"


def test_epsilon_is_the_largest_of_all_sites_and_never_falls() -> None:
    result = sample(sites=2, rounds=2)
    spent = ({"site-01": 1.0, "site-02": 5.0}, {"site-01": 2.0})
    history = [replace(r, epsilon=e) for r, e in zip(result.history, spent, strict=True)]
    assert "epsilon 5.00 of at most 8" in plot_epsilon(replace(result, history=history)).title


def test_time_and_bytes_are_summed_in_the_titles() -> None:
    result = sample(sites=4, rounds=1, failing=0.0)
    assert plot_bytes(result).title == "409.9 kB in all, 102.5 kB per site"
    timed = replace(result, seconds={"data": 1.0, "features": 61.0})
    assert plot_seconds(timed).title == "1 min 2 s in all, the longest part is features: 1 min 1 s"
    assert "1 min 1 s" in texts(plot_seconds(timed))


def test_the_smallest_and_the_largest_site_are_named() -> None:
    result = sample(sites=3)
    sized = [replace(s, train=n) for s, n in zip(result.sites, (50, 7, 1200), strict=True)]
    title = plot_examples(replace(result, sites=sized)).title
    assert title == "From 7 training examples (site-02) to 1,200 (site-03)"


def test_letters_of_any_script_and_mathematics_are_taken_as_they_are() -> None:
    result = sample(classes=4)
    names = ["漢字", "$x^$", "<b>&amp;", "_hidden\x00\ud800"]
    drawn = figures(replace(result, classes=names))
    assert {"漢字", "$x^$", "<b>&amp;"} <= set(texts(drawn["confusion"]))
    "".join(plot.svg for plot in drawn.values()).encode()


def test_importing_the_report_does_not_import_what_draws_it() -> None:
    heavy = ("matplotlib", "jinja2", "torch", "flwr", "timm", "onnxruntime")
    code = "import sys, fedtl.report.html, fedtl.report.table; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fedtl.report.html" in done.stdout
    assert [name for name in heavy if f"'{name}'" in done.stdout] == []


def test_every_section_is_drawn_in_order() -> None:
    assert list(draw_all(sample())) == list(SECTIONS)
