"""Which sites to name when there is no room for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fedtl.report.result import RunResult, SiteResult

Item = TypeVar("Item")


def by_accuracy(result: RunResult) -> list[SiteResult]:
    """Return the evaluated sites, worst first; ties by name."""
    known = [site for site in result.sites if site.accuracy is not None]
    return sorted(known, key=lambda s: (s.accuracy or 0.0, s.name))


def worst_site(result: RunResult) -> SiteResult | None:
    """Return the site where the global head does worst; None with fewer than two evaluated."""
    known = by_accuracy(result)
    return known[0] if len(known) > 1 else None


def extremes(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, from both ends of the sequence.

    Examples
    --------
    >>> extremes(range(9), 4), extremes(range(3), 4)
    ([0, 1, 7, 8], [0, 1, 2])
    """
    if len(items) <= most:
        return list(items)
    return [*items[: most - most // 2], *items[len(items) - most // 2 :]]


def thinned(n: int, most: int = 200) -> list[int]:
    """Return at most so many evenly spread indices below n; the first and the last are among them.

    Examples
    --------
    >>> thinned(4), thinned(100, 4)
    ([0, 1, 2, 3], [0, 33, 66, 99])
    """
    if n <= most:
        return list(range(n))
    return [i * (n - 1) // (most - 1) for i in range(most)]
