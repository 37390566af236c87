"""What an opener finds, before classes are numbered and the split is drawn."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.data.manifest import Problem, Source
from fedtl.data.split import held_out
from fedtl.errors import DataError, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a data set with their labels still as names.

    Attributes
    ----------
    name : str
        Name of the data set.
    labels : Sequence[str]
        ``[n]`` class names.
    digests : NDArray[np.uint8]
        ``[n, 32]``.
    source : Source
        Reads row ``i``.
    classes : tuple[str, ...]
        The class names in order, if the data say so (they may name classes without rows).
    groups, split, sites : Sequence[str] or None
        ``[n]`` each; ``split`` holds ``"train"``, ``"test"`` or ``""`` (to be drawn).
    problems, notes : tuple
        As in :class:`~fedtl.data.manifest.Manifest`.
    """

    name: str
    labels: Sequence[str]
    digests: NDArray[np.uint8]
    source: Source
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in order: by value if all are whole numbers, else by code point.

    Examples
    --------
    >>> ordered({"10", "9", "1"}), ordered({"dog", "cat"})
    (('1', '9', '10'), ('cat', 'dog'))
    """
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def check_distinct(names: Iterable[str], place: str) -> None:
    """Refuse names that differ only by case, white space or Unicode form, such as Cat and "cat ".

    Raises
    ------
    DataError
        With both names.
    """
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if key in seen:
            raise DataError(
                f"{place} has two classes that differ only by case or white space: "
                f"{seen[key]!r} and {name!r}.",
                next_step="Rename one, or merge the two.",
                code="data.classes",
            )
        seen[key] = name


def number(rows: Rows, classes: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names and each row's label; ``classes`` fixes names and order if given.

    Raises
    ------
    DataError
        Fewer than two classes, names that can be confused, or a label that ``classes`` lacks.
    """
    found = rows.classes or ordered(rows.labels)
    check_distinct([*found, *rows.labels], f"'{rows.name}'")
    names = tuple(classes) or found
    if len(set(names)) != len(names):
        raise DataError(
            f"classes names a class twice: {', '.join(names)}.",
            next_step="Name every class once.",
            code="data.classes",
        )
    if len(names) < 2:
        raise DataError(
            f"'{rows.name}' has {len(names)} class ({', '.join(names)}); a head needs two or more.",
            next_step="Add another class, or name all classes of the federation with `classes`.",
            code="data.classes",
        )
    index = {name: label for label, name in enumerate(names)}
    for label in ordered(set(rows.labels) | set(rows.classes)):
        if label not in index:
            raise DataError(
                f"'{rows.name}' has the class {label!r}, which `classes` does not name.",
                next_step=nearest(label, names),
                code="data.classes",
            )
    return names, np.array([index[label] for label in rows.labels], dtype=np.int64)


def split(rows: Rows, test_fraction: float) -> NDArray[np.bool_]:
    """Return which rows are held out: as the data say, else by hash (:func:`held_out`).

    A row without a stated split follows its group, if another row of the group states one.

    Raises
    ------
    DataError
        The data put one group into both splits.
    """
    drawn = held_out(rows.digests, test_fraction=test_fraction, groups=rows.groups)
    if rows.split is None:
        return drawn
    wanted = rows.split if rows.groups is None else _by_group(rows.name, rows.split, rows.groups)
    return np.array([w == "test" if w else d for w, d in zip(wanted, drawn, strict=True)], bool)


def _by_group(name: str, split: Sequence[str], groups: Sequence[str]) -> list[str]:
    stated: dict[str, str] = {}
    for group, own in zip(groups, split, strict=True):
        if own and stated.setdefault(group, own) != own:
            raise DataError(
                f"'{name}' puts the group {group!r} into both train and test.",
                next_step="Give all rows of a group the same split; else the test result flatters.",
                code="data.leak",
            )
    return [stated.get(group, "") for group in groups]
