"""A study's plan: one TOML file that spans many recipes, all of them built before anything runs.

A base recipe, and axes: each is a list of named changes of one table (``[[strategy]]``,
``[[partition]]``, ``[[privacy]]`` or any other table of a recipe). The cells of the study are all
combinations, once for every seed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from fedtl.errors import RecipeError, nearest
from fedtl.recipe.explain import TomlKind
from fedtl.recipe.load import DEFAULT, RECIPE, anchored, checked_recipe
from fedtl.recipe.tables import Recipe, Table

AXES: dict[str, type[Table]] = {
    name: field.annotation
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type)
    and issubclass(field.annotation, Table)
    and name not in ("federation", "compare")
}
"""Tables of a recipe that a study may vary: a new table needs nothing here."""
_ALONGSIDE = {*Recipe.model_fields} - {"name", "seed", "federation", "compare"}
MOST_LABEL = 60
_Seed = Annotated[int, Field(ge=0, lt=1 << 63, strict=True)]


class _Plan(Table):
    """The keys of a plan beside its axes."""

    name: str = Field(
        "", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,60})?$", description="empty: the file's name"
    )
    base: str | dict[str, Any] = Field({}, description="a recipe's tables, or the path of one")
    baseline: str = Field("", description="label that others are tested against; empty: the first")
    seeds: tuple[_Seed, ...] = Field((1, 2, 3), description="one run each")


_axes: dict[str, Any] = {name: (tuple[dict[str, Any], ...] | None, None) for name in AXES}
Plan: type[_Plan] = create_model("Plan", __base__=_Plan, **_axes)
PLAN = TomlKind(
    "plan",
    Plan,
    absent="Check the path; simulations/studies/example.toml is a plan to start from.",
    look_up="see simulations/studies/example.toml and `fedtl recipe show`.",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One named choice on an axis.

    Attributes
    ----------
    changes : mapping of str to Any
        Table of a recipe (or one of its top keys) to the values it changes.
    """

    label: str
    changes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Axis:
    """What is varied: a table of the recipe, and its choices."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the choices, in the plan's order."""
        return tuple(entry.label for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    Attributes
    ----------
    labels : tuple of (str, str)
        Axis and label, in the order of the axes.
    """

    labels: tuple[tuple[str, str], ...]
    recipe: Recipe = field(repr=False)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.seed

    @property
    def title(self) -> str:
        """Labels and seed, for people."""
        return ", ".join([*(label for _, label in self.labels), f"seed {self.seed}"])


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study, completely described.

    Attributes
    ----------
    axes : tuple of Axis
        In a recipe's order, the one that is compared last.
    baseline : str
        A label of the last axis.
    cells : tuple of Cell
        All combinations, seeds innermost.
    """

    name: str
    axes: tuple[Axis, ...]
    baseline: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...] = field(repr=False)


def load_plan(path: Path) -> StudyPlan:
    """Read a plan and build the recipe of each of its cells.

    Raises
    ------
    RecipeError
        The file is missing or malformed, a name in it is unknown, it has no cells, two axes change
        one value, or a cell's values do not go together.
    """
    _check_lists(values := PLAN.read(path), path)
    try:
        plan = Plan.model_validate(values)
    except ValidationError as error:
        raise PLAN.explain(error, str(path)) from error
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        raise RecipeError(
            f"seeds = {list(plan.seeds)} in {path} {'repeats one' if plan.seeds else 'is empty'}.",
            next_step="Name different seeds, such as seeds = [1, 2, 3].",
        )
    axes, baseline = _compared_last(_axes_of(plan, path), plan.baseline, path)
    _check_apart(axes, path)
    return StudyPlan(
        name=plan.name or path.stem,
        axes=axes,
        baseline=baseline,
        seeds=plan.seeds,
        cells=tuple(_cells(_base(plan, path), axes, plan.seeds, path)),
    )


def _check_lists(values: Mapping[str, Any], path: Path) -> None:
    """Refuse a table of a recipe where a plan has a list of choices."""
    if table := next((name for name in AXES if isinstance(values.get(name), dict)), ""):
        raise RecipeError(
            f"[{table}] in {path} is one table, and a plan has a list of choices there.",
            next_step=f"Write [[{table}]] for each choice, or [base.{table}] for all of them.",
        )


def _base(plan: _Plan, path: Path) -> dict[str, Any]:
    """Return the values that all cells start from."""
    if isinstance(plan.base, str):
        file = path.parent / Path(plan.base).expanduser()
        return anchored(RECIPE.read(file), file.parent)
    return anchored(copy.deepcopy(plan.base or DEFAULT), path.parent)


def _axes_of(plan: _Plan, path: Path) -> tuple[Axis, ...]:
    given = {name: getattr(plan, name) for name in AXES if getattr(plan, name) is not None}
    empty = next((name for name, entries in given.items() if not entries), "")
    if empty or not given:
        raise RecipeError(
            f"The plan '{path}' has no cells: "
            + (f"{empty} is an empty list." if empty else "it varies nothing."),
            next_step="Add a table such as [[strategy]] with name = 'fedavg' for each choice.",
        )
    return tuple(Axis(name, _entries(name, given[name], path)) for name in given)


def _entries(axis: str, given: Sequence[dict[str, Any]], path: Path) -> tuple[Entry, ...]:
    entries = tuple(_entry(axis, values, path) for values in given)
    labels = [entry.label for entry in entries]
    if twice := next((label for label in labels if labels.count(label) > 1), ""):
        raise RecipeError(
            f"Two [[{axis}]] in {path} are called '{twice}'.",
            next_step="Give each of them its own label = '...'.",
        )
    return entries


def _entry(axis: str, values: dict[str, Any], path: Path) -> Entry:
    own_keys = AXES[axis].model_fields
    label = values.get("label", "")
    rest = {key: value for key, value in values.items() if key != "label"}
    if not isinstance(label, str) or len(label) > MOST_LABEL or not label.isprintable():
        raise RecipeError(
            f"label = {label!r} of a [[{axis}]] in {path} is no short text.",
            next_step=f"Write at most {MOST_LABEL} characters in quotes.",
        )
    for key in rest:
        if key not in own_keys and key not in _ALONGSIDE:
            raise RecipeError(
                f"'{key}' of a [[{axis}]] in {path} is unknown.",
                next_step=nearest(key, {"label", *own_keys, *_ALONGSIDE}),
            )
    own = {key: value for key, value in rest.items() if key in own_keys}
    changes = {axis: own, **{key: value for key, value in rest.items() if key not in own_keys}}
    return Entry(label.strip() or _called(own), anchored(changes, path.parent))


def _called(values: Mapping[str, Any]) -> str:
    """Return a label made of what is changed."""
    shown = []
    for key, value in values.items():
        if isinstance(value, dict):
            shown += [k if isinstance(v, dict) else f"{k} {v}" for k, v in value.items()]
        elif key in ("name", "kind", "source"):
            shown.append(Path(str(value)).name.rpartition(":")[2])
        else:
            shown.append(f"{key} {value}")
    return ", ".join(shown)[:MOST_LABEL] or "base"


def _compared_last(axes: tuple[Axis, ...], wanted: str, path: Path) -> tuple[tuple[Axis, ...], str]:
    """Put the baseline's axis last; return the axes and the baseline's label."""
    usual = sorted(axes, key=lambda axis: (len(axis.entries) < 2, axis.name != "strategy"))
    if not wanted:
        return _last(axes, usual[0]), usual[0].labels[0]
    for axis in usual:
        for entry in axis.entries:
            if wanted in (entry.label, entry.changes[axis.name].get("name")):
                return _last(axes, axis), entry.label
    raise RecipeError(
        f"baseline = '{wanted}' in {path} is no label of the plan.",
        next_step=nearest(wanted, [label for axis in axes for label in axis.labels]),
    )


def _last(axes: tuple[Axis, ...], chosen: Axis) -> tuple[Axis, ...]:
    return (*(axis for axis in axes if axis is not chosen), chosen)


def _check_apart(axes: tuple[Axis, ...], path: Path) -> None:
    """Refuse two axes that change one value: a label would not say what was run."""
    for one, other in combinations(axes, 2):
        both = set.intersection(
            *({key for entry in axis.entries for key in _dotted(entry)} for axis in (one, other))
        )
        if both:
            raise RecipeError(
                f"[[{one.name}]] and [[{other.name}]] in {path} both change {min(both)}.",
                next_step="Change it on one axis only.",
            )


def _dotted(entry: Entry) -> Iterator[str]:
    for table, values in entry.changes.items():
        yield from (f"{table}.{key}" for key in values) if isinstance(values, dict) else (table,)


def _cells(
    base: dict[str, Any], axes: tuple[Axis, ...], seeds: tuple[int, ...], path: Path
) -> Iterator[Cell]:
    for chosen in product(*(axis.entries for axis in axes)):
        values = copy.deepcopy(base)
        for axis, entry in zip(axes, chosen, strict=True):
            _change(values, axis.name, entry.changes)
        labels = tuple((axis.name, entry.label) for axis, entry in zip(axes, chosen, strict=True))
        recipe = checked_recipe(values, f"{path} ({', '.join(label for _, label in labels)})")
        _check_alpha(recipe, chosen, path)
        for seed in seeds:
            yield Cell(labels, recipe.model_copy(update={"seed": seed}))


def _check_alpha(recipe: Recipe, chosen: Sequence[Entry], path: Path) -> None:
    """Refuse to tell runs apart by an alpha that nothing depends on."""
    kind, changed = recipe.partition.kind, [e.changes.get("partition", {}) for e in chosen]
    if kind != "dirichlet" and any("alpha" in values for values in changed):
        raise RecipeError(
            f"{path} varies partition.alpha, and partition.kind = '{kind}' has none.",
            next_step="Set kind = 'dirichlet', or leave alpha out.",
        )


def _change(values: dict[str, Any], axis: str, changes: Mapping[str, Any]) -> None:
    """Apply an entry; the options of one strategy are not those of another."""
    for key, change in changes.items():
        before = values.get(key, {})
        anew = key == axis == "strategy" and "name" in change
        merges = isinstance(change, dict) and isinstance(before, dict) and not anew
        values[key] = {**before, **change} if merges else change
