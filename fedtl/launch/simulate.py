"""A simulation from recipe to run folder: build, run the rounds, compare, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from fedtl.apps.client import make_client_app
from fedtl.data.manifest import Problem
from fedtl.home import only_one, write_atomic
from fedtl.launch.attacks import attacked
from fedtl.launch.compare import Comparison, compare
from fedtl.launch.federation import Federation, Sites, build
from fedtl.launch.history import write_csv
from fedtl.launch.labels import Labels
from fedtl.launch.ledgers import check_ledgers
from fedtl.launch.plans import cautions
from fedtl.launch.progress import Progress, silent
from fedtl.launch.quiet import quiet_flower
from fedtl.launch.results import module_of, result_of
from fedtl.launch.run_folder import claim
from fedtl.launch.story import Spent, Story
from fedtl.modules import save_module
from fedtl.recipe import Recipe
from fedtl.report.result import RunResult
from fedtl.rounds.sites import describe_sites
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import DropoutGrid

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A run that came to an end, or was stopped and can be resumed."""

    result: RunResult
    folder: Path
    head: dict[str, object] = field(repr=False, default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """Files that were left out, by name: for who owns them, never part of the result."""


def simulate(
    recipe: Recipe,
    folder: Path,
    *,
    progress: Progress = silent,
    html: bool = True,
    grid: Grid | None = None,
) -> Finished:
    """Run a simulation, or what is left of it, and write its run folder.

    A folder that holds the checkpoint of the same recipe is resumed, and the head it ends with is
    the one of an uninterrupted run. Ctrl-C keeps every finished round and raises
    ``KeyboardInterrupt``.

    Parameters
    ----------
    folder : Path
        New, empty, or the folder of an earlier run of this very recipe.
    html : bool
        Whether to draw ``report.html``; ``report.json`` is always written.
    grid : Grid, optional
        A Grid that a Flower runtime made; by default the recipe's transport makes one.

    Raises
    ------
    FedtlError
        Anything the user can mend; what was finished before is kept.
    """
    with only_one(folder):
        claim(folder, recipe)
        return _simulate(recipe, folder, progress=progress, html=html, grid=grid)


def _simulate(
    recipe: Recipe, folder: Path, *, progress: Progress, html: bool, grid: Grid | None
) -> Finished:
    federation = build(recipe, progress)
    plan = federation.plan()
    for caution in cautions(recipe, federation.manifest, federation.rows):
        _log.warning("%s", caution)
    story = Story(federation.terms, plan, folder, progress)
    started = time.perf_counter()
    try:
        with quiet_flower(unless=grid is not None):
            tell(story, federation, grid)
    except KeyboardInterrupt:
        if story.entries:
            seconds = time.perf_counter() - started
            _conclude(story, federation, "stopped", Comparison(), seconds, html=html)
        raise
    seconds = time.perf_counter() - started
    with quiet_flower():
        comparison = compare(federation, progress)
    return _conclude(story, federation, "finished", comparison, seconds, html=html)


def tell(
    story: Story, federation: Federation, grid: Grid | None = None, *, ledgers: bool = True
) -> None:
    """Run the rounds that are left, on the given Grid or the recipe's transport.

    Parameters
    ----------
    ledgers : bool
        Whether sites keep ledgers in the story's folder; without, a site counts for itself.
    """
    if story.finished:
        return
    spent = story.spent()

    def on(grid: Grid) -> None:
        described = describe_sites(grid, at_least=len(federation.rows))
        sites = {node: description.name for node, description in described.items()}
        story.tell(grid, sites, around=partial(_disturbed, federation.recipe))

    if grid is not None:
        on(grid)
        return
    if ledgers:
        check_ledgers(story.folder, spent)
    on_grid(federation, on, spent=spent, folder=story.folder if ledgers else None)


def _disturbed(recipe: Recipe, grid: Grid, names: Mapping[int, str]) -> Grid:
    """Return a grid that loses replies or has bad sites, where the recipe wants that."""
    rate = recipe.transport.dropout
    lossy = DropoutGrid(grid, rate=rate, seed=recipe.seed, names=names) if rate else grid
    return attacked(recipe, lossy, names)


def on_grid(
    federation: Federation,
    story: Callable[[Grid], None],
    *,
    spent: Spent,
    folder: Path | None = None,
) -> None:
    """Call ``story`` with the Grid of the recipe's transport; ledgers lie in the run folder."""
    site_of = Sites.of(federation, spent, folder.absolute() if folder else None)
    app = make_client_app(site_of)
    via = federation.recipe.transport.via
    try:
        if via == "ray":
            from fedtl.transport.ray import run_on_ray

            run_on_ray(app, len(federation.rows), story)
        elif via == "local":
            story(LocalGrid(app, federation.names))
        else:
            story(StackedGrid(app, federation.names, site_of=site_of))
    finally:
        site_of.close()


def _conclude(
    story: Story,
    federation: Federation,
    status: str,
    comparison: Comparison,
    seconds: float,
    *,
    html: bool,
) -> Finished:
    result = result_of(
        federation,
        story.entries,
        plan=story.plan,
        labels=story.labels or Labels(),
        status=status,
        rounds=story.rounds,
        kept=story.kept,
        comparison=comparison,
        seconds={**federation.seconds, "rounds": seconds, "comparisons": comparison.seconds},
    )
    result = write_result(story, result, html=html)
    return Finished(result, story.folder, {**story.head}, federation.manifest.problems)


def write_result(story: Story, result: RunResult, *, html: bool) -> RunResult:
    """Write what a run leaves behind beside its checkpoint; return it with the strategy's notes."""
    folder = story.folder
    result = replace(result, notes=[*result.notes, *getattr(story.strategy, "notes", ())])
    write_atomic(folder / "report.json", lambda file: file.write(result.to_json().encode()))
    write_csv(folder, story.entries)
    if result.status == "finished":
        heads = {"module": story.head} | {
            f"module-{name}": head
            for name, head in getattr(story.strategy, "more_heads", {}).items()
        }
        for name, head in heads.items():
            save_module(folder / name, module_of(story.terms, head, result))
    if html:
        from fedtl.report.html import write_report

        write_report(result, folder / "report.html")
    return result
