"""One run as one page: self-contained, readable offline, without scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fedtl.home import write_atomic
from fedtl.report.order import by_accuracy, extremes, worst_site
from fedtl.report.plot_personal import ahead
from fedtl.report.plots import draw_all
from fedtl.report.result import RunResult, SiteResult, not_evaluated
from fedtl.report.words import (
    clean,
    count,
    duration,
    few,
    percent,
    plural,
    privacy,
    short,
    size,
    told,
)

MOST_ROWS = 500
"""Sites in the page's table; ``report.json`` has them all."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number: what it is, its value, and one line that puts it into proportion."""

    label: str
    value: str
    note: str


def write_report(result: RunResult, path: Path) -> None:
    """Write a run's report as one HTML file.

    The page loads nothing from anywhere and forbids itself to (its Content-Security-Policy allows
    inline styles and embedded images only). Names in the result are escaped: they come from sites.

    Parameters
    ----------
    result : RunResult
        A finished or stopped run; what was not measured is left out and said so.
    path : Path
        The file to create or replace.

    Raises
    ------
    CacheError
        The file cannot be written.
    """
    page = render_page(result).encode("utf-8", errors="replace")
    write_atomic(path, lambda file: file.write(page))


def render_page(result: RunResult) -> str:
    """Return the report as HTML text; see :func:`write_report`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    words = (clean, count, duration, few, percent, plural, privacy, short, size, told)
    environment.filters.update({word.__name__: word for word in words})
    environment.filters.update(plain=_plain, tie=_tie, ahead=ahead)
    source = resources.files("fedtl.report").joinpath("template.html").read_text("utf-8")
    shown = _shown_sites(result)
    return environment.from_string(source).render(
        run=result,
        tiles=_tiles(result),
        sections=draw_all(result),
        sites=shown,
        worst=worst_site(result),
        not_evaluated=not_evaluated(result),
        left_out=len(result.sites) - len(shown),
        personal=[site for site in shown if site.personal is not None],
        failures=_failures([r.failures for r in result.history]),
        missed=sum(len(r.failures) for r in result.history),
        unevaluated=_failures([r.unevaluated for r in result.history]),
    )


def _plain(value: Any) -> str:
    """Return a value of the backbone's card as text."""
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _tie(text: str) -> str:
    """Keep a percentage on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _shown_sites(result: RunResult) -> list[SiteResult]:
    if len(result.sites) <= MOST_ROWS:
        return result.sites
    return extremes(by_accuracy(result) or result.sites, MOST_ROWS)


def _tiles(result: RunResult) -> list[Tile]:
    note = "not measured" if result.accuracy is None else "right on held-out examples"
    if result.metrics != "clear":
        noised = result.accuracy is not None and result.metrics == "noised"
        note = f"{note}, with noise" if noised else not_evaluated(result)
    tiles = [Tile(result.heads, percent(result.accuracy), note)]
    if worst := worst_site(result):
        tiles.append(Tile("Worst site", percent(worst.accuracy), short(worst.name, 24)))
    for label, other in (
        ("Without privacy", result.accuracy_without_privacy),
        ("Local-only", result.accuracy_local_own),
    ):
        if other is not None:
            tiles.append(Tile(label, percent(other), _versus(result.accuracy, other)))
    tiles += [_privacy_tile(result), *_held_out_tile(result)]
    return [*tiles, _time_tile(result), _bytes_tile(result)]


def _versus(accuracy: float | None, other: float) -> str:
    if accuracy is None:
        return "the same examples"
    points = 100 * (other - accuracy)
    if abs(points) < 0.05:
        return "the same as the global head"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'} the global head"


def _privacy_tile(result: RunResult) -> Tile:
    if result.epsilon is None:
        return Tile("Privacy", "off", "updates were sent as they are")
    spent = max((site.epsilon for site in result.sites), default=0.0)
    delta = f" at delta\N{NO-BREAK SPACE}{result.delta:g}" if result.delta is not None else ""
    return Tile("Epsilon spent", privacy(spent), f"of at most {result.epsilon:g}{delta}")


def _held_out_tile(result: RunResult) -> list[Tile]:
    if result.metrics != "noised" or result.epsilon is None:
        return []
    spent = max((site.epsilon_held_out for site in result.sites), default=0.0)
    return [Tile("Epsilon, held out", privacy(spent), f"of at most {result.epsilon:g}, by itself")]


def _time_tile(result: RunResult) -> Tile:
    return Tile(
        "Time", duration(sum(result.seconds.values())), plural(len(result.history), "round")
    )


def _bytes_tile(result: RunResult) -> Tile:
    up = sum(r.bytes_up for r in result.history)
    down = sum(r.bytes_down for r in result.history)
    return Tile("Sent", size(up + down), f"{size(up)} of it by the sites")


def _failures(rounds: Sequence[Mapping[str, str]]) -> list[tuple[str, int, str]]:
    """Return failure code, number of failures, and sites concerned; the most frequent first."""
    found: dict[str, Counter[str]] = {}
    for failures in rounds:
        for site, code in failures.items():
            found.setdefault(code, Counter())[site] += 1
    ranked = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return [(code, sites.total(), _named(sites)) for code, sites in ranked]


def _named(sites: Counter[str]) -> str:
    most = sorted(sites.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{short(name, 24)} ({times}×)" for name, times in most[:5])
    return named + (f" and {count(len(most) - 5)} more" if len(most) > 5 else "")
