"""The page: complete, escaped, and without a way out to the network."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample import RECIPE, sample, stopped, without_evaluation, without_privacy

from fedtl.errors import CacheError
from fedtl.report.html import MOST_ROWS, render_page, write_report
from fedtl.report.result import RunResult
from fedtl.report.words import percent

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Elements, their attributes, and the words a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page(result: RunResult) -> Page:
    return Page(render_page(result))


def hostile(result: RunResult) -> RunResult:
    """Put hostile text everywhere a site or a data set can put text."""
    names = {site.name: f"{HOSTILE}{i}" for i, site in enumerate(result.sites)}
    return replace(
        result,
        name=HOSTILE,
        guarantee=HOSTILE,
        plan=HOSTILE,
        recipe=f'name = "{HOSTILE}"',
        classes=[f"{HOSTILE}{i}" for i in range(len(result.classes))],
        sites=[replace(site, name=names[site.name]) for site in result.sites],
        history=[
            replace(r, failures={names[n]: HOSTILE for n in r.failures}) for r in result.history
        ],
        digests={HOSTILE: HOSTILE},
        backbone={HOSTILE: [HOSTILE]},
        extraction=replace(result.extraction, engine=HOSTILE, notes={HOSTILE: 3}),
        problems=[HOSTILE],
        notes=[HOSTILE],
    )


def test_the_page_says_what_was_found_and_how() -> None:
    result = sample(failing=0.3)
    text = page(result).text
    shares = (result.accuracy, result.accuracy_without_privacy, result.accuracy_local_own)
    for expected in (
        *(percent(share) for share in shares),
        *(result.plan, result.guarantee, result.strategy, result.version, result.created),
        *result.digests.values(),
        *result.extraction.notes,
        *result.notes,
        *(site.name for site in result.sites),
        *(str(value) for value in result.backbone.values() if isinstance(value, str)),
        "site.timeout",
        " ".join(RECIPE.split()),
    ):
        assert expected in text


def test_every_figure_has_a_finding_and_an_explanation() -> None:
    text = render_page(sample())
    cards = text.split("<figure")[1:]
    assert len(cards) == 8
    for card in cards:
        below = card.split("</svg>")[1].split("</figure>")[0]
        assert len(Page(below).text) > 100
        assert len(Page(card.split("</h3>")[0]).text) > 10


@pytest.mark.parametrize("sites", [5, 40])
def test_hostile_names_stay_text(sites: int) -> None:
    result = hostile(sample(sites=sites, failing=0.3))
    found = page(result)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [a for _, attrs in found.tags for a in attrs if a.startswith("on")]
    assert "<script>alert(1)</script>" in found.text


@pytest.mark.parametrize("result", [sample(), sample(sites=100, classes=100), hostile(sample())])
def test_nothing_is_loaded_from_anywhere(result: RunResult) -> None:
    text = render_page(result)
    for tag, attrs in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    styles = text.split("<style>")[1].split("</style>")[0]
    assert "@import" not in styles
    assert "url(" not in styles


def test_the_page_forbids_itself_the_network() -> None:
    policies = [attrs["content"] for _, attrs in page(sample()).tags if "http-equiv" in attrs]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_a_stopped_run_says_so_and_names_its_problem() -> None:
    result = stopped(sample())
    text = page(result).text
    assert "stopped 1 of 10 rounds" in text
    assert result.problems[0] in text


def test_a_run_without_privacy_says_so() -> None:
    text = page(without_privacy(sample())).text
    assert "Privacy off updates were sent as they are" in text
    assert "Epsilon spent" not in text


def test_a_run_without_evaluation_says_so() -> None:
    text = page(without_evaluation(sample())).text
    assert "Global head - not measured" in text
    assert "The head was not evaluated in this run." in text


def test_of_very_many_sites_the_page_lists_the_worst_and_best() -> None:
    result = sample(sites=MOST_ROWS + 7, rounds=1)
    found = page(result)
    worst = min(result.sites, key=lambda s: s.accuracy)
    assert f"{worst.name} (worst)" in found.text
    assert "7 more sites are in report.json." in found.text


def test_failures_are_counted_by_code_and_site() -> None:
    result = sample(sites=2, rounds=3, failing=0.0)
    failed = ({"site-01": "data.empty"}, {"site-01": "data.empty"}, {"site-02": "site.timeout"})
    history = [replace(r, failures=f) for r, f in zip(result.history, failed, strict=True)]
    text = page(replace(result, history=history)).text
    assert "3 updates did not arrive" in text
    assert "data.empty 2 site-01 (2×)" in text
    assert "site.timeout 1 site-02 (1×)" in text


def test_the_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(sample(rounds=1), path)
    write_report(sample(rounds=2), path)
    assert path.read_text("utf-8") == render_page(sample(rounds=2))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_broken_character_does_not_lose_the_report(tmp_path: Path) -> None:
    write_report(replace(sample(), recipe="\ud800"), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"report\.html"):
        write_report(sample(rounds=1), tmp_path / "file" / "report.html")
