"""The server's story of one run, from wherever it stands to its last round.

The same in a simulation and in a federation: it knows its sites by what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.errors import RecipeError
from fedtl.launch.history import Entry, Tally, load_history, save_history
from fedtl.launch.labels import Labels, load_labels, save_labels, told_labels
from fedtl.launch.plans import releases_per_round, settings_of
from fedtl.launch.progress import Progress
from fedtl.launch.run_folder import CHECKPOINT
from fedtl.launch.secure import secured
from fedtl.launch.terms import Terms
from fedtl.privacy.plan import PrivacyPlan
from fedtl.recipe import Recipe
from fedtl.recipe.tables import Pace as PaceTable
from fedtl.rounds import RoundRecord, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.handed import is_finished
from fedtl.rounds.record import Results
from fedtl.rounds.run import Sites
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.train.task import TrainTask
from fedtl.transport.compress import CompressedGrid
from fedtl.transport.journal import Journal
from fedtl.transport.paced import Pace, PacedGrid
from fedtl.transport.together import TogetherGrid
from fedtl.transport.wrappers import MeteredGrid
from fedtl.types import Arrays
from fedtl.wire.compress import Compression
from fedtl.wire.messages import task_config

Spent = Mapping[str, Mapping[str, int]]
"""Site to mechanism to private releases."""


def check_head_kind(recipe: Recipe, strategy: Strategy) -> None:
    """Refuse a strategy that makes one kind of heads where another kind is wanted.

    Raises
    ------
    RecipeError
        They do not go together.
    """
    says = Declared.of(strategy)
    own = says.head_kind if says.only_gradients else "linear"
    wanted = own or recipe.head.kind
    if wanted != recipe.head.kind:
        raise RecipeError(
            f"Strategy '{recipe.strategy.name}' makes {wanted} heads, head.kind is "
            f"'{recipe.head.kind}'.",
            next_step=f"Set head.kind = '{wanted}', or choose another strategy.",
        )


class Story:
    """One run's rounds; every finished one is on disk before the next begins.

    Parameters
    ----------
    terms : Terms
        What the sites agree on.
    plan : PrivacyPlan or None
        Of the whole run.
    folder : Path
        The run folder; a checkpoint in it is taken up.
    """

    def __init__(
        self, terms: Terms, plan: PrivacyPlan | None, folder: Path, progress: Progress
    ) -> None:
        self.terms, self.plan, self.folder, self.progress = terms, plan, folder, progress
        recipe = terms.recipe
        self.strategy = strategy_of(recipe)
        check_head_kind(recipe, self.strategy)
        if recipe.compress.kind != "none" and recipe.transport.secure:
            raise RecipeError(
                f"compress.kind = '{recipe.compress.kind}', and transport.secure is true: masked "
                "updates can be added up, compressed ones cannot.",
                next_step="Set one of them to 'none' or false.",
            )
        if recipe.pace.buffer and recipe.transport.secure:
            raise RecipeError(
                f"pace.buffer = {recipe.pace.buffer}, and transport.secure is true: a sum is of "
                "sites that began with one head.",
                next_step="Set pace.buffer = 0 or transport.secure = false.",
            )
        says = Declared.of(self.strategy)
        if says.needs_evaluations and recipe.privacy.metrics == "off":
            raise RecipeError(
                f"strategy '{recipe.strategy.name}' with {[*recipe.strategy.around]} around it "
                "looks at held-out results, and privacy.metrics is 'off'.",
                next_step="Set privacy.metrics = 'noised' or 'clear', or choose another strategy.",
            )
        self.rounds = says.rounds or recipe.train.rounds
        self.take_up()

    def take_up(self) -> None:
        """Go back to the last finished round, or to the start."""
        checkpoint = self.folder / CHECKPOINT
        first = State(0, self.terms.initial_head(self.strategy))
        self.state = load(checkpoint, self.strategy) or first
        self.entries = load_history(checkpoint, self.state.round)
        self.labels = load_labels(checkpoint)

    @property
    def finished(self) -> bool:
        """Whether no round is left."""
        return self.state.round >= self.rounds or is_finished(self.strategy, self.state.round)

    @property
    def kept(self) -> int:
        """The round whose head is the run's result; 0: the last one."""
        found: int = getattr(self.strategy, "kept_round", 0)
        return found

    @property
    def head(self) -> Arrays:
        """The run's result so far."""
        best: Arrays = getattr(self.strategy, "kept_head", {}) if self.kept else {}
        return {**self.state.head, **best}

    def spent(self) -> Spent:
        """Return what every site has released so far."""
        per_round = releases_per_round(self.terms.recipe) if self.plan else {}
        before = self.labels.spent if self.labels else {}
        return Tally.of(self.entries, per_round, before).counts

    def settings(self) -> Settings:
        """Return the loop's settings."""
        return settings_of(self.terms.recipe, self.rounds)

    def tell(
        self,
        grid: Grid,
        sites: Sites,
        *,
        settings: Settings | None = None,
        around: Callable[[Grid, Mapping[int, str]], Grid] = lambda grid, names: grid,
        real: bool = False,
    ) -> None:
        """Run the rounds that are left.

        Parameters
        ----------
        sites : mapping of int to str, or callable
            Node id to site name, for all rounds or asked for before each.
        settings : Settings, optional
            By default those of the recipe.
        around : callable
            Wraps the grid that counts bytes; called with it and the names.
        real : bool
            Whether sites are real: time is no virtual one, and a session of secure aggregation must
            survive this process, because they would pay for another one.
        """
        recipe, names = self.terms.recipe, dict(sites(0) if callable(sites) else sites)
        asked = settings or self.settings()
        metered = MeteredGrid(grid)
        outer: Grid = TogetherGrid(metered) if asked.together else metered
        if recipe.compress.kind != "none":
            outer = CompressedGrid(outer, Compression(**recipe.compress.model_dump()))
        outer = around(outer, names)
        if recipe.pace != PaceTable() and not real:
            pace = Pace(**recipe.pace.model_dump())
            outer = PacedGrid(outer, pace=pace, seed=recipe.seed, names=names)
        if recipe.transport.secure:
            journal = Journal(self.folder / CHECKPOINT / "secagg") if real else None
            outer = secured(outer, self.strategy, self.terms, names, journal)
        config = task_config(TrainTask.of(recipe), self.plan, seed=recipe.seed)
        if self.labels is None and self.plan is not None and self.plan.covers("labels"):
            self.labels = told_labels(outer, names, config, self.terms)
            self.remember_labels(self.labels)
        self.progress("rounds", self.state.round, self.rounds)

        def there(round_: int) -> Mapping[int, str]:
            now = sites(round_) if callable(sites) else sites
            names.update(now)
            return now

        run(
            outer,
            self.strategy,
            sites=there,
            start=self.state,
            config=config,
            settings=asked,
            on_round=lambda state, record: self._keep(state, record, metered, names),
            on_evaluated=self._amend,
        )

    def _keep(
        self, state: State, record: RoundRecord, grid: MeteredGrid, names: Mapping[int, str]
    ) -> None:
        """Take in what a round did, and save it."""
        traffic = grid.traffic.take()
        down = {names[node]: n for node, n in traffic.down.items()}
        up = {names[node]: n for node, n in traffic.up.items()}
        self.entries.append(Entry(record, down, up))
        self.state = state
        self.remember()
        self.progress("rounds", state.round, self.rounds)

    def remember(self) -> None:
        """Save the rounds so far: history first, then the checkpoint that points at it."""
        save_history(self.folder / CHECKPOINT, self.entries)
        save(self.folder / CHECKPOINT, self.state, self.strategy)

    def remember_labels(self, labels: Labels) -> None:
        """Save what the sites told of their labels before the first round."""
        save_labels(self.folder / CHECKPOINT, labels)

    def _amend(self, round_: int, results: Results) -> None:
        """Note the evaluation of an earlier round; the next round's checkpoint saves it."""
        for at, entry in enumerate(self.entries):
            if entry.record.round == round_:
                self.entries[at] = Entry(results.on(entry.record), entry.down, entry.up)
