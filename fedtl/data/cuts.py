"""Six ways to give rows to sites: a function from a :class:`Cut` to each row's owner."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What a way of partitioning may look at.

    Attributes
    ----------
    labels, test : NDArray
        ``[n]``.
    sites : int
        Number of sites.
    rng : np.random.Generator
        The only source of chance.
    alpha : float
        Concentration of the Dirichlet distribution.
    classes_per_site : int
        For ``"classes"``.
    groups, natural : NDArray[np.str_] or None
        ``[n]``, for ``"group"`` and ``"natural"``.
    """

    labels: Rows
    test: NDArray[np.bool_]
    sites: int
    rng: np.random.Generator
    alpha: float
    classes_per_site: int
    groups: NDArray[np.str_] | None
    natural: NDArray[np.str_] | None


def iid(cut: Cut) -> Rows:
    """Shuffle, then deal out like cards."""
    return _apply(cut, lambda rows: np.arange(len(rows)) % cut.sites)


def quantity(cut: Cut) -> Rows:
    """Draw the sites' sizes from a Dirichlet distribution; labels stay mixed."""
    share = _dirichlet(cut, 1)[0]
    return _apply(cut, lambda rows: _in_proportion(share, len(rows)))


def dirichlet(cut: Cut) -> Rows:
    """Deal out each class in proportions drawn from a Dirichlet distribution over the sites.

    Yurochkin et al. 2019 (arXiv:1905.12022) and Li et al. 2022 (arXiv:2102.02079); Hsu et al. 2019
    (arXiv:1909.06335) draw over the classes of a site instead. Sizes differ between sites too.
    """
    classes, code = np.unique(cut.labels, return_inverse=True)
    share = _dirichlet(cut, len(classes))
    return _apply(cut, lambda rows: _in_proportion(share[code[rows[0]]], len(rows)), code)


def by_class(cut: Cut) -> Rows:
    """Give each site ``classes_per_site`` classes, every class to equally many sites (within one).

    After McMahan et al. 2017 (arXiv:1602.05629), but a site never gets more classes than asked.
    """
    classes, code = np.unique(cut.labels, return_inverse=True)
    wanted, n_classes = cut.classes_per_site, len(classes)
    if not 1 <= wanted <= n_classes or wanted * cut.sites < n_classes:
        raise bad(
            f"classes_per_site is {wanted} with {cut.sites} sites and {n_classes} classes",
            f"Choose from {max(1, math.ceil(n_classes / cut.sites))} to {n_classes}.",
        )
    holders: list[list[int]] = [[] for _ in range(n_classes)]
    used = np.zeros(n_classes)
    for site in range(cut.sites):
        for held in np.argsort(used + cut.rng.random(n_classes))[:wanted]:
            holders[held].append(site)
            used[held] += 1
    share = [np.array(sites, dtype=np.int64) for sites in holders]

    def deal(rows: Rows) -> Rows:
        own = share[code[rows[0]]]
        dealt: Rows = own[np.arange(len(rows)) % len(own)]
        return dealt

    return _apply(cut, deal, code)


def by_group(cut: Cut) -> Rows:
    """Give whole groups to sites: the largest first, each to the site with the fewest rows so far.

    Groups without training rows (held-out patients) are balanced by themselves.
    """
    if cut.groups is None:
        raise bad("The partition 'group' needs groups", "Open data that name a group per row.")
    _, code = np.unique(cut.groups, return_inverse=True)
    n_train, n_all = np.bincount(code, ~cut.test), np.bincount(code)
    if (n_train > 0).sum() < cut.sites:
        raise bad(
            f"{int((n_train > 0).sum())} groups to train on are too few for {cut.sites} sites",
            "Ask for fewer sites.",
        )
    owner = np.empty(len(n_all), dtype=np.int64)
    shuffled = cut.rng.permutation(len(n_all))
    for size, chosen in ((n_train, n_train > 0), (n_all, n_train == 0)):
        groups = shuffled[chosen[shuffled]]
        groups = groups[np.argsort(-size[groups], kind="stable")]
        heap = [(0, site) for site in range(cut.sites)]
        for group in groups.tolist():
            load, owner[group] = heap[0]
            heapq.heapreplace(heap, (load + int(size[group]), int(owner[group])))
    owner_of_row: Rows = owner[code]
    return owner_of_row


def by_nature(cut: Cut) -> Rows:
    """Leave each row at the site the data name."""
    return np.unique(np.asarray(cut.natural), return_inverse=True)[1].astype(np.int64)


PARTITIONS: dict[str, Callable[[Cut], Rows]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "classes": by_class,
    "group": by_group,
    "quantity": quantity,
    "natural": by_nature,
}


def _apply(cut: Cut, deal: Callable[[Rows], Rows], code: Rows | None = None) -> Rows:
    """Deal out shuffled train and test rows by the same rule, class by class if there is a code."""
    owner = np.empty(len(cut.labels), dtype=np.int64)
    n_codes = 1 if code is None else int(code.max()) + 1
    for part in (~cut.test, cut.test):
        for one in range(n_codes):
            rows = np.flatnonzero(part if code is None else part & (code == one))
            if len(rows):
                rows = cut.rng.permutation(rows)
                owner[rows] = deal(rows)
    return owner


def _dirichlet(cut: Cut, n_draws: int) -> NDArray[np.float64]:
    if not (math.isfinite(cut.alpha) and cut.alpha > 0):
        raise bad(f"alpha is {cut.alpha}", "Give a positive number, e.g. 0.5.")
    return cut.rng.dirichlet(np.full(cut.sites, cut.alpha), size=n_draws)


def _in_proportion(share: NDArray[np.float64], n_rows: int) -> Rows:
    """Cut ``n_rows`` in a row so that each site gets its share to within one row."""
    places = (np.arange(n_rows) + 0.5) / n_rows
    return np.minimum(np.searchsorted(np.cumsum(share), places), len(share) - 1)


def bad(fault: str, cure: str) -> DataError:
    """Return the error of a cut that cannot be made."""
    return DataError(f"{fault}.", next_step=cure, code="data.partition")
