"""The server's story of one run, from wherever it stands to its last round.

The same in a simulation and in a federation: it knows its sites by what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.serverapp import Grid

from fedtl.errors import RecipeError
from fedtl.launch.history import Entry, Tally, load_history, save_history
from fedtl.launch.labels import load_labels, save_labels, told_labels
from fedtl.launch.plans import mechanisms_of, releases_per_round, settings_of
from fedtl.launch.progress import Progress
from fedtl.launch.run_folder import CHECKPOINT
from fedtl.launch.secure import secured
from fedtl.launch.terms import Terms
from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds import RoundRecord, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.record import Results
from fedtl.rounds.run import Sites
from fedtl.strategies import make_strategy
from fedtl.train.task import TrainTask
from fedtl.transport.journal import Journal
from fedtl.transport.wrappers import MeteredGrid
from fedtl.wire.messages import task_config

Spent = Mapping[str, Mapping[str, int]]
"""Site to mechanism to private releases."""


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
        self.strategy = make_strategy(recipe.strategy.name, recipe.strategy.options)
        if mechanisms_of(self.strategy) != ("gradients",) and recipe.head.kind != "linear":
            raise RecipeError(
                f"Strategy '{recipe.strategy.name}' makes linear heads, head.kind is "
                f"'{recipe.head.kind}'.",
                next_step="Set head.kind = 'linear', or choose another strategy.",
            )
        self.rounds = getattr(self.strategy, "rounds", recipe.train.rounds)
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
        return self.state.round >= self.rounds

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
            Whether a session of secure aggregation must survive this process: real sites would pay
            for another one.
        """
        recipe, names = self.terms.recipe, dict(sites(0) if callable(sites) else sites)
        metered = MeteredGrid(grid)
        outer = around(metered, names)
        if recipe.transport.secure:
            journal = Journal(self.folder / CHECKPOINT / "secagg") if real else None
            outer = secured(outer, self.strategy, self.terms, names, journal)
        config = task_config(TrainTask.of(recipe), self.plan, seed=recipe.seed)
        if self.labels is None and self.plan is not None and self.plan.covers("labels"):
            self.labels = told_labels(outer, names, config, self.terms)
            save_labels(self.folder / CHECKPOINT, self.labels)
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
            settings=settings or self.settings(),
            on_round=lambda state, record: self._keep(state, record, metered, names),
            on_evaluated=self._amend,
        )

    def _keep(
        self, state: State, record: RoundRecord, grid: MeteredGrid, names: Mapping[int, str]
    ) -> None:
        """Save what a round did: history first, then the checkpoint that points at it."""
        traffic = grid.traffic.take()
        down = {names[node]: n for node, n in traffic.down.items()}
        up = {names[node]: n for node, n in traffic.up.items()}
        self.entries.append(Entry(record, down, up))
        self.state = state
        save_history(self.folder / CHECKPOINT, self.entries)
        save(self.folder / CHECKPOINT, state, self.strategy)
        self.progress("rounds", state.round, self.rounds)

    def _amend(self, round_: int, results: Results) -> None:
        """Note the evaluation of an earlier round; the next round's checkpoint saves it."""
        for at, entry in enumerate(self.entries):
            if entry.record.round == round_:
                self.entries[at] = Entry(results.on(entry.record), entry.down, entry.up)
