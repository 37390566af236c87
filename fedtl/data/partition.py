"""Who owns which rows in a simulation: one data set, cut into sites."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.data.cuts import PARTITIONS, Cut, Rows, bad
from fedtl.errors import nearest
from fedtl.rng import stream

__all__ = ["PARTITIONS", "SiteRows", "partition"]


@dataclass(frozen=True, slots=True, eq=False)
class SiteRows:
    """The rows of one site, ascending."""

    name: str
    train: Rows
    test: Rows


def partition(
    labels: NDArray[np.integer],
    test: NDArray[np.bool_],
    *,
    kind: str,
    sites: int,
    seed: int,
    alpha: float = 0.5,
    classes_per_site: int = 2,
    groups: Sequence[str] | None = None,
    natural: Sequence[str] | None = None,
    min_examples: int = 2,
) -> tuple[SiteRows, ...]:
    """Give each row to exactly one site; a site's train and test rows follow the same skew.

    A site left with fewer than ``min_examples`` training rows is topped up, row by row, from
    the site that has the most at that moment. Redrawing, as Li et al. 2022 (arXiv:2102.02079) do,
    would never end for strong skew and many sites. ``"group"`` and ``"natural"`` are never topped
    up, for that would tear groups apart. Test rows are not topped up: a site may have none. A row
    that tops up ``"classes"`` may be of another class than the site's own.

    Parameters
    ----------
    labels : NDArray[np.integer]
        ``[n]``.
    test : NDArray[np.bool_]
        ``[n]``, true where a row is held out.
    kind : str
        A key of :data:`PARTITIONS`.
    sites : int
        Number of sites; for ``"natural"`` their true number, or 0.
    seed : int
        The run's seed.
    alpha : float
        For ``"dirichlet"`` and ``"quantity"``; smaller is more skewed.
    classes_per_site : int
        For ``"classes"``.
    groups, natural : Sequence[str], optional
        ``[n]``: the group of each row for ``"group"``, its site for ``"natural"``.
    min_examples : int
        Fewest training rows of a site.

    Returns
    -------
    tuple[SiteRows, ...]
        In the order of the sites' names; names are ``site-01``... or the natural ones.

    Raises
    ------
    DataError
        An unknown kind, an argument out of range, or fewer rows, groups or classes than are needed.

    Examples
    --------
    >>> cut = partition(np.arange(6) % 2, np.arange(6) > 3, kind="iid", sites=2, seed=1)
    >>> [(site.name, len(site.train), len(site.test)) for site in cut]
    [('site-01', 2, 1), ('site-02', 2, 1)]
    """
    if kind not in PARTITIONS:
        raise bad(f"The partition {kind!r} is unknown", nearest(kind, PARTITIONS))
    held, natural_ = np.asarray(test, dtype=bool), _column(natural)
    names = _names(kind, sites, natural_)
    cut = Cut(
        labels=np.asarray(labels, dtype=np.int64),
        test=held,
        sites=len(names),
        rng=stream(seed, "partition"),
        alpha=alpha,
        classes_per_site=classes_per_site,
        groups=_column(groups),
        natural=natural_,
    )
    _check(cut, min_examples)
    owner = PARTITIONS[kind](cut)
    if kind in ("group", "natural"):
        _check_filled(names, owner[~held], min_examples)
    else:
        owner = _top_up(owner, cut, min_examples)
    train = _rows_of(owner, np.flatnonzero(~held), cut.sites)
    held_out = _rows_of(owner, np.flatnonzero(held), cut.sites)
    return tuple(map(SiteRows, names, train, held_out))


def _top_up(owner: Rows, cut: Cut, min_examples: int) -> Rows:
    # Shuffled, since rows may lie sorted by class and a donor gives its last ones.
    rows = cut.rng.permutation(np.flatnonzero(~cut.test))
    owner, held = owner.copy(), _rows_of(owner, rows, cut.sites)
    heap = [(-len(own), site) for site, own in enumerate(held)]
    heapq.heapify(heap)
    for site in range(cut.sites):
        for _ in range(min_examples - len(held[site])):
            size, donor = heap[0]
            owner[held[donor][-size - 1]] = site
            heapq.heapreplace(heap, (size + 1, donor))
    return owner


def _rows_of(owner: Rows, rows: Rows, sites: int) -> list[Rows]:
    order = rows[np.argsort(owner[rows], kind="stable")]
    return np.split(order, np.cumsum(np.bincount(owner[rows], minlength=sites))[:-1])


def _names(kind: str, sites: int, natural: NDArray[np.str_] | None) -> list[str]:
    if kind == "natural":
        if natural is None:
            raise bad("The partition 'natural' needs sites", "Open data that name a site per row.")
        names = [str(name) for name in np.unique(natural)]
        if sites not in (0, len(names)):
            raise bad(f"sites is {sites}, but the data name {len(names)}", "Set sites to 0.")
        return names
    if sites < 1:
        raise bad(f"sites is {sites}", "Ask for one or more.")
    width = max(2, len(str(sites)))
    return [f"site-{number:0{width}d}" for number in range(1, sites + 1)]


def _check(cut: Cut, min_examples: int) -> None:
    columns = {"test": cut.test, "groups": cut.groups, "natural": cut.natural}
    for name, column in columns.items():
        if column is not None and column.shape != cut.labels.shape:
            raise bad(f"{len(cut.labels)} labels but {len(column)} of {name}", "Pass one per row.")
    if min_examples < 0:
        raise bad(f"min_examples is {min_examples}", "Give 0 or more.")
    n_train = int((~cut.test).sum())
    if n_train < cut.sites * max(1, min_examples):
        raise bad(
            f"{n_train} training rows are too few for {cut.sites} sites of {min_examples} or more",
            "Ask for fewer sites.",
        )


def _check_filled(names: Sequence[str], owner: Rows, min_examples: int) -> None:
    for name, size in zip(names, np.bincount(owner, minlength=len(names)), strict=True):
        if size < min_examples:
            raise bad(
                f"The site '{name}' has {size} training rows, fewer than {min_examples}",
                "Ask for fewer sites, lower min_examples, or add data.",
            )


def _column(values: Sequence[str] | None) -> NDArray[np.str_] | None:
    return None if values is None else np.asarray(values, dtype=np.str_)
