"""A simulation from recipe to run folder: build, run the rounds, compare, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from flwr.serverapp import Grid

from fedtl.apps.client import make_client_app
from fedtl.data.manifest import Problem
from fedtl.errors import CacheError, RecipeError
from fedtl.home import only_one, write_atomic
from fedtl.launch.compare import Comparison, compare
from fedtl.launch.federation import Federation, Sites, Spent, build
from fedtl.launch.history import (
    Entry,
    Tally,
    load_history,
    save_history,
    write_csv,
)
from fedtl.launch.labels import Labels, load_labels, save_labels, told_labels
from fedtl.launch.ledgers import check_ledgers
from fedtl.launch.plans import (
    cautions,
    mechanisms_of,
    releases_per_round,
    settings_of,
)
from fedtl.launch.progress import Progress, silent
from fedtl.launch.quiet import quiet_flower
from fedtl.launch.results import module_of, result_of
from fedtl.launch.secure import secured
from fedtl.modules import save_module
from fedtl.privacy.plan import PrivacyPlan
from fedtl.recipe import Recipe, load_recipe
from fedtl.report.result import RunResult
from fedtl.rounds import RoundRecord, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import DropoutGrid, MeteredGrid
from fedtl.wire.messages import task_config

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A run that came to an end, or was stopped and can be resumed."""

    result: RunResult
    folder: Path
    head: dict[str, object] = field(repr=False, default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """Files that were left out, by name: for who owns them, never part of the result."""


def new_folder(recipe: Recipe, base: Path = Path("runs")) -> Path:
    """Return a run folder that does not exist yet: ``runs/<name>-<time>``."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, more = base / f"{recipe.name}-{stamp}", 1
    while folder.exists():
        more += 1
        folder = base / f"{recipe.name}-{stamp}-{more}"
    return folder


def recipe_of(folder: Path) -> Recipe:
    """Return the recipe of a run folder.

    Raises
    ------
    CacheError
        The folder is no run folder.
    """
    if not (folder / "recipe.toml").is_file():
        raise CacheError(
            f"'{folder}' is not a run folder: it has no recipe.toml.",
            next_step="Name a folder such as runs/digits-20260101-120000.",
        )
    return load_recipe(folder / "recipe.toml")


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
        _claim(folder, recipe)
        return _simulate(recipe, folder, progress=progress, html=html, grid=grid)


def _simulate(
    recipe: Recipe, folder: Path, *, progress: Progress, html: bool, grid: Grid | None
) -> Finished:
    federation = build(recipe, progress)
    story = _Story(federation, folder, progress)
    started = time.perf_counter()
    try:
        with quiet_flower(unless=grid is not None):
            story.tell(grid)
    except KeyboardInterrupt:
        if story.entries:
            _conclude(story, "stopped", Comparison(), time.perf_counter() - started, html=html)
        raise
    seconds = time.perf_counter() - started
    with quiet_flower():
        comparison = compare(federation, progress)
    return _conclude(story, "finished", comparison, seconds, html=html)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, or check that the folder belongs to it."""
    path = folder / "recipe.toml"
    if path.is_file():
        if load_recipe(path) != recipe:
            raise RecipeError(
                f"'{folder}' belongs to another recipe.",
                next_step="Resume it without changing its recipe, or start in a new folder.",
            )
        return
    text = f"# fedtl recipe, resolved. Run it again: fedtl simulate {path}\n{recipe.to_toml()}"
    write_atomic(path, lambda file: file.write(text.encode()))


class _Story:
    """One run's rounds, from wherever it stands to the end."""

    def __init__(self, federation: Federation, folder: Path, progress: Progress) -> None:
        self.federation, self.folder, self.progress = federation, folder, progress
        recipe = federation.recipe
        self.strategy = make_strategy(recipe.strategy.name, recipe.strategy.options)
        if mechanisms_of(self.strategy) != ("gradients",) and recipe.head.kind != "linear":
            raise RecipeError(
                f"Strategy '{recipe.strategy.name}' makes linear heads, head.kind is "
                f"'{recipe.head.kind}'.",
                next_step="Set head.kind = 'linear', or choose another strategy.",
            )
        self.rounds = getattr(self.strategy, "rounds", recipe.train.rounds)
        self.plan: PrivacyPlan | None = federation.plan()
        for caution in cautions(recipe, federation.manifest, federation.rows):
            _log.warning("%s", caution)
        head = federation.initial_head(self.strategy)
        self.state = load(folder / "checkpoint", self.strategy) or State(0, head)
        self.entries = load_history(folder / "checkpoint", self.state.round)
        self.labels = load_labels(folder / "checkpoint")
        self._before: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def tell(self, grid: Grid | None) -> None:
        """Run the rounds that are left, on the given Grid or the recipe's transport."""
        if self.state.round >= self.rounds:
            return
        if grid is not None:
            self._on_grid(grid)
        else:
            on_grid(self.federation, self._on_grid, spent=self._spent(), folder=self.folder)

    def _spent(self) -> Spent:
        per_round = releases_per_round(self.federation.recipe) if self.plan else {}
        before = self.labels.spent if self.labels else {}
        spent = Tally.of(self.entries, per_round, before).counts
        check_ledgers(self.folder, spent)
        return spent

    def _on_grid(self, grid: Grid) -> None:
        recipe = self.federation.recipe
        expected = len(self.federation.rows)
        sites = {node: d.name for node, d in describe_sites(grid, at_least=expected).items()}
        metered = MeteredGrid(grid)
        outer: Grid = metered
        if recipe.transport.dropout:
            outer = DropoutGrid(
                metered, rate=recipe.transport.dropout, seed=recipe.seed, names=sites
            )
        if recipe.transport.secure:
            outer = secured(outer, self.strategy, self.federation, sites)
        config = task_config(TrainTask.of(recipe), self.plan, seed=recipe.seed)
        if self.labels is None and self.plan is not None and self.plan.covers("labels"):
            self.labels = told_labels(outer, sites, config, self.federation)
            save_labels(self.folder / "checkpoint", self.labels)
        self.progress("rounds", self.state.round, self.rounds)
        run(
            outer,
            self.strategy,
            sites=sites,
            start=self.state,
            config=config,
            settings=settings_of(recipe, self.rounds),
            on_round=lambda state, record: self._keep(state, record, metered, sites),
        )

    def _keep(
        self, state: State, record: RoundRecord, grid: MeteredGrid, sites: dict[int, str]
    ) -> None:
        """Save what a round did: history first, then the checkpoint that points at it."""
        traffic = grid.traffic.take()
        down = {sites[node]: n for node, n in traffic.down.items()}
        up = {sites[node]: n for node, n in traffic.up.items()}
        self.entries.append(Entry(record, down, up))
        self.state = state
        save_history(self.folder / "checkpoint", self.entries)
        save(self.folder / "checkpoint", state, self.strategy)
        self.progress("rounds", state.round, self.rounds)


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
    story: _Story, status: str, comparison: Comparison, seconds: float, *, html: bool
) -> Finished:
    federation, folder = story.federation, story.folder
    result = result_of(
        federation,
        story.entries,
        plan=story.plan,
        labels=story.labels or Labels(),
        status=status,
        rounds=story.rounds,
        comparison=comparison,
        seconds={**federation.seconds, "rounds": seconds, "comparisons": comparison.seconds},
    )
    write_atomic(folder / "report.json", lambda file: file.write(result.to_json().encode()))
    write_csv(folder, story.entries)
    if status == "finished":
        save_module(folder / "module", module_of(federation, story.state.head, result))
    if html:
        from fedtl.report.html import write_report

        write_report(result, folder / "report.html")
    return Finished(result, folder, dict(story.state.head), federation.manifest.problems)
