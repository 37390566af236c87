"""Reports of runs whose results are noised, hidden or not there: what is shown is said to be so."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console
from sample import sample, without_evaluation

from fedtl.report.html import render_page
from fedtl.report.plot_confusion import plot_confusion
from fedtl.report.plot_data import plot_labels
from fedtl.report.plot_quality import plot_rounds, plot_sites
from fedtl.report.result import RunResult
from fedtl.report.table import print_summary


def noised(result: RunResult) -> RunResult:
    sites = [replace(site, epsilon_held_out=7.25) for site in result.sites]
    return replace(result, metrics="noised", sites=sites)


def page(result: RunResult) -> str:
    """Return the words of the page."""
    text = re.sub(r"<style.*?</style>", " ", render_page(result), flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def printed(result: RunResult) -> str:
    out = io.StringIO()
    print_summary(result, Console(file=out, width=80), Path("runs/x"))
    return "\n".join(line.strip() for line in out.getvalue().splitlines())


def written(svg: str) -> list[str]:
    return [unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]


def test_what_held_out_records_spent_stands_beside_training_where_noised() -> None:
    result = noised(sample())
    assert "Epsilon, held out 7.25 of at most 8, by itself" in page(result)
    assert page(result).count("7.25") == 1 + len(result.sites)
    lines = printed(result).splitlines()
    assert all("7.25" in line for line in lines if line.startswith("site-"))
    assert "7.25" in next(line for line in lines if line.startswith(f"{len(result.sites)} sites"))
    assert all(len(line) <= 80 for line in lines)
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)  # nothing is cut off
    assert printed(result).count("eps.") == 2
    assert "eps." not in printed(sample())
    assert "Epsilon, held out" not in page(sample())


def test_noised_results_are_said_to_be_noised() -> None:
    for plot in (plot_rounds, plot_sites, plot_confusion):
        shown, plain = plot(noised(sample())), plot(sample())
        assert shown is not None
        assert plain is not None
        assert "nois" in shown.meaning
        assert "nois" not in plain.meaning
    assert "right on held-out examples, with noise" in page(noised(sample()))


def test_a_run_that_was_not_to_be_evaluated_says_so() -> None:
    off = replace(without_evaluation(sample()), metrics="off")
    said = "not evaluated (privacy.metrics = off)"
    assert page(off).count(said) == 2
    assert said in printed(off)
    assert said not in page(without_evaluation(sample()))
    assert "The head was not evaluated in this run." in page(without_evaluation(sample()))


def test_sites_whose_result_is_missing_are_named_with_their_code() -> None:
    result = sample()
    (first, *rest) = result.history
    lost = replace(first, unevaluated={"site-03": "policy.metrics", "site-04": "privacy.budget"})
    text = page(replace(result, history=[lost, *rest]))
    assert "policy.metrics 1 site-03 (1×) privacy.budget 1 site-04 (1×)" in text
    assert "did not arrive or were refused" not in page(result)


def test_small_numbers_are_hidden_wherever_they_would_stand() -> None:
    result = sample(classes=4)
    small = replace(result.sites[0], train=61, test=3, labels=[None, 41, None, 19])
    hidden = replace(result, suppress_below=5, sites=[small, *result.sites[1:]])
    plot = plot_labels(hidden)
    assert plot is not None
    assert written(plot.svg).count("<5") == 2
    assert "Numbers marked <5 are too small to be shown" in plot.meaning
    assert "site-01 61 <5" in page(hidden)
    assert "Numbers below 5 are not shown" in page(hidden)
    row = next(line for line in printed(hidden).splitlines() if line.startswith("site-01"))
    assert " 61 " in row
    assert " <5 " in row
    assert "<5" not in page(result)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [None, None, None, None], []])
def test_sites_of_whose_labels_nothing_is_known_are_left_out(labels: list[int | None]) -> None:
    result = sample(classes=4)
    sites = [replace(result.sites[0], labels=labels), *result.sites[1:]]
    plot = plot_labels(replace(result, suppress_below=5, sites=sites))
    assert plot is not None
    assert "site-01" not in written(plot.svg)


def test_noised_labels_are_said_to_be_noised() -> None:
    plot = plot_labels(replace(sample(), labels="noised"))
    assert plot is not None
    assert "with noise, under the plan" in plot.meaning
    plain = plot_labels(sample())
    assert plain is not None
    assert "noise" not in plain.meaning


def test_results_with_hidden_numbers_survive_the_disk() -> None:
    result = noised(sample(classes=4))
    sites = [replace(result.sites[0], labels=[None, 3, 0, None]), *result.sites[1:]]
    result = replace(result, sites=sites)
    assert RunResult.from_json(result.to_json()) == result
