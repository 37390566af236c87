"""What of a plan cannot be, found out before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flwr.serverapp.strategy import Strategy

from fedtl.backbone import BackboneCard
from fedtl.errors import FedtlError, RecipeError
from fedtl.launch.plans import cohort_size, plan_of
from fedtl.launch.progress import silent
from fedtl.launch.study.cell import CellStory
from fedtl.launch.terms import Terms
from fedtl.privacy.calibrate import check_budget
from fedtl.recipe import Recipe
from fedtl.recipe.study import Cell
from fedtl.recipe.tables import Pace
from fedtl.rounds.sites import check_minimums
from fedtl.rounds.summable import check_summable
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.strategies.robust.mixing import Mixing
from fedtl.strategies.robust.rule import Robust, check_cohort


def check_cells(cells: Sequence[Cell]) -> list[int]:
    """Make every cell's strategy and privacy plan, and try what does not depend on data.

    Returns
    -------
    list of int
        Rounds of each cell.

    Raises
    ------
    FedtlError
        Of the kind a run would fail with; it names the cell.
    """
    known: dict[tuple[tuple[str, str], ...], int] = {}
    for cell in cells:
        if cell.labels not in known:
            with named(", ".join(label for _, label in cell.labels)):
                known[cell.labels] = _rounds(cell.recipe)
    _check_seconds(cells)
    return [known[cell.labels] for cell in cells]


def _check_seconds(cells: Sequence[Cell]) -> None:
    """Refuse to set virtual seconds beside real ones."""
    paced = {cell.recipe.pace != Pace(): cell for cell in cells}
    if len(paced) > 1:
        raise RecipeError(
            f"'{paced[True].title}' counts virtual seconds ([pace]), and '{paced[False].title}' "
            "those of this machine.",
            next_step="Set pace.spread in the base: then all cells count virtual seconds.",
        )


@contextmanager
def named(title: str) -> Iterator[None]:
    """Say in an error which cell it is about."""
    try:
        yield
    except FedtlError as error:
        raise type(error)(
            f"The cell '{title}' cannot be: {error.problem}",
            next_step=error.next_step,
            code=error.code,
        ) from error


def _rounds(recipe: Recipe) -> int:
    """Check one recipe; return its rounds."""
    if recipe.transport.via == "ray":
        raise RecipeError(
            "transport.via = 'ray', but a study spreads its cells over the cores by itself.",
            next_step="Set transport.via = 'stacked'.",
        )
    strategy = strategy_of(recipe)
    small = _invented(max(16, (Declared.of(strategy).directions or 0) + 1))
    story = CellStory(Terms(recipe, small, ("a", "b", "c")), None, Path(), silent)
    _check_sites(story.strategy, recipe)
    if recipe.transport.secure:
        check_summable(story.strategy, story.state.head)
    if recipe.privacy.enabled:
        check_budget(recipe.privacy.epsilon, recipe.privacy.delta)
        if recipe.train.sampling == "full":  # then the plan does not depend on the sites' sizes
            plan_of(recipe, mean_size=100.0, sites=recipe.partition.sites)
    return story.rounds


def _check_sites(strategy: Strategy, recipe: Recipe) -> None:
    """Refuse a strategy that needs more sites than a round will have."""
    sites = recipe.partition.sites
    if recipe.partition.kind == "natural":  # as many as the data name
        return
    cohort = cohort_size(recipe, sites)
    check_minimums(strategy, cohort, sites)
    if isinstance(strategy, Robust | Mixing):
        check_cohort(strategy, strategy.least, cohort)


def _invented(width: int) -> BackboneCard:
    """Return the card of a backbone that nobody has, with features so wide."""
    return BackboneCard(
        architecture="invented",
        sha256="0" * 64,
        source="",
        licence="",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation="bilinear",
        crop_pct=1.0,
        crop_mode="center",
        native_size=8,
        image_size=8,
        taps=("final",),
        tap_widths=(width,),
        timm_version="",
    )
