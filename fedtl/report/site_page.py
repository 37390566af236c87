"""What was found at a site as one page: self-contained, readable offline, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from fedtl import __version__
from fedtl.home import write_atomic
from fedtl.report.canvas import Plot
from fedtl.report.words import clean, plural
from fedtl.types import Finding

MOST_LINES = 500
"""Of a list on the page."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Lines that belong to a finding and are too many for it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """What was found about one subject.

    Attributes
    ----------
    findings : tuple of Finding
        In the order in which they are read.
    plots, lists : tuple
        For the page only.
    """

    title: str
    findings: tuple[Finding, ...]
    plots: tuple[Plot, ...] = ()
    lists: tuple[Listed, ...] = ()


def number_of(chapters: Sequence[Chapter], state: str) -> int:
    """Return how many findings have a state."""
    return sum(f.state == state for chapter in chapters for f in chapter.findings)


def verdict(chapters: Sequence[Chapter]) -> str:
    """Say in one sentence whether the site can take part.

    Examples
    --------
    >>> verdict([Chapter("Data", (Finding("data", "ok", "80 pictures"),))])
    'Nothing is broken.'
    """
    broken, notes = number_of(chapters, "broken"), number_of(chapters, "note")
    said = f"{plural(broken, 'thing')} must be mended" if broken else "Nothing is broken"
    return f"{said}, {plural(notes, 'note')}." if notes else f"{said}."


def write_site_page(name: str, chapters: Sequence[Chapter], path: Path) -> None:
    """Write the page; it is for the site itself, so only its owner can read the file.

    Raises
    ------
    CacheError
        The file cannot be written.
    """
    page = render_site_page(name, chapters).encode("utf-8", errors="replace")
    write_atomic(path, lambda file: file.write(page), mode=0o600)


def render_site_page(name: str, chapters: Sequence[Chapter]) -> str:
    """Return the page as HTML text; whatever comes from data, file names included, is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = clean
    source = resources.files("fedtl.report").joinpath("site.html").read_text("utf-8")
    return environment.from_string(source).render(
        name=name,
        chapters=chapters,
        verdict=verdict(chapters),
        broken=number_of(chapters, "broken") > 0,
        created=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        version=__version__,
        most=MOST_LINES,
    )
