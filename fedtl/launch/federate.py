"""A run with real sites: the story that SuperLink's ServerApp tells.

What it needs is in the run folder, and so is everything that it finds out: whichever process dies,
the same call goes on after the last finished round.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from fedtl.backbone import BackboneCard, store
from fedtl.errors import CacheError, FedtlError, RecipeError, TransportError
from fedtl.home import only_one, write_atomic
from fedtl.launch.attendance import Attendance
from fedtl.launch.labels import Labels
from fedtl.launch.opening import card_of
from fedtl.launch.plans import plan_of
from fedtl.launch.run_folder import recipe_of
from fedtl.launch.simulate import write_result
from fedtl.launch.story import Story
from fedtl.launch.terms import Terms
from fedtl.launch.told import EpsilonOf, told_result
from fedtl.launch.watch import Watch
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe
from fedtl.recipe.tables import Pace
from fedtl.report.result import RunResult
from fedtl.rounds.rollcall import Wanted
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.transport.buffered import BufferedGrid
from fedtl.transport.superlink import LONGEST_WAIT, CharteredGrid, FollowedGrid
from fedtl.wire.charter import sign_charter

_log = logging.getLogger(__name__)
_FILE = "run.json"
_VOID = frozenset({"round.empty", "round.few", "secagg.threshold", "sites.missing"})
"""Failures of a round that another try may mend."""
_PAUSE = 10.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a run fixed when it began, and keeps when it is resumed.

    Attributes
    ----------
    run : str
        By which sites know the run, whatever Flower calls it.
    classes : tuple of str
        In order.
    plan : PrivacyPlan or None
        Of the whole run.
    """

    run: str
    classes: tuple[str, ...]
    plan: PrivacyPlan | None

    def save(self, folder: Path) -> None:
        """Write it into a run folder."""
        plan = self.plan.to_json() if self.plan else ""
        text = json.dumps({"run": self.run, "classes": self.classes, "plan": plan})
        write_atomic(folder / _FILE, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, folder: Path) -> Fixed | None:
        """Read it; None if the run has not begun.

        Raises
        ------
        CacheError
            It is damaged.
        """
        try:
            raw = json.loads((folder / _FILE).read_text("utf-8"))
            plan = PrivacyPlan.from_json(raw["plan"]) if raw["plan"] else None
            return cls(str(raw["run"]), tuple(map(str, raw["classes"])), plan)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, FedtlError) as error:
            raise CacheError(
                f"'{folder / _FILE}' is damaged.",
                next_step="Put it back from a copy, or start a new run: with another one, sites "
                "would pay again for what they have released.",
            ) from error


def check_deployable(recipe: Recipe) -> None:
    """Refuse what a server that does not know the data cannot carry out.

    Raises
    ------
    RecipeError
        Names the key.
    """
    if recipe.pace != Pace(buffer=recipe.pace.buffer):
        raise RecipeError(
            f"pace.spread = {recipe.pace.spread:g}, pace.seconds = {recipe.pace.seconds:g}: "
            "virtual time is for simulations, real sites have speeds of their own.",
            next_step="Leave nothing but pace.buffer in [pace], or run fedtl simulate.",
        )
    if 0 < recipe.pace.buffer < recipe.federation.least_updates:
        raise RecipeError(
            f"pace.buffer = {recipe.pace.buffer} ends a round before the "
            f"{recipe.federation.least_updates} updates of federation.least_updates are there.",
            next_step="Raise the one, or lower the other.",
        )
    if recipe.attack.kind != "none":
        raise RecipeError(
            f"attack.kind = '{recipe.attack.kind}' is for simulations: real sites are not made to "
            "send anything but what they train.",
            next_step="Set attack.kind = 'none', or run fedtl simulate.",
        )
    gradients = Declared.of(strategy_of(recipe)).gradients
    if recipe.privacy.enabled and gradients and not recipe.privacy.public_size:
        raise RecipeError(
            "privacy.public_size is 0, and no site tells its size.",
            next_step=f"Name the public number of {recipe.privacy.unit}s of a typical site: "
            "--set privacy.public_size=1000.",
        )


def federate(folder: Path, grid: Grid, key: Identity, *, expected: int = 0) -> RunResult:
    """Run what is left of a run, on the Grid that Flower's deployment runtime made.

    Parameters
    ----------
    folder : Path
        The run folder, with its recipe.
    key : Identity
        The coordinator's, by which sites know who asks.
    expected : int
        Sites that are enrolled; 0 where that is not known.

    Raises
    ------
    FedtlError
        It is also written into ``progress.json``; what was finished before is kept.
    """
    with only_one(folder):
        watch = Watch(folder)
        try:
            result = _federate(folder, grid, key, watch, expected)
        except FedtlError as error:
            watch.tell(state="failed", said=str(error))
            raise
        except BaseException:
            watch.tell(state="stopped", said="Stopped; every finished round is kept.")
            raise
        watch.tell(state="finished", said="", accuracy=result.accuracy)
        return result


def _federate(folder: Path, grid: Grid, key: Identity, watch: Watch, expected: int) -> RunResult:
    recipe = recipe_of(folder)
    check_deployable(recipe)
    watch.tell(state="waiting", said="Reading the backbone.", rounds=recipe.train.rounds)
    card, before = card_of(recipe.backbone), Fixed.load(folder)
    run = before.run if before else f"{recipe.name}-{secrets.token_hex(16)}"
    followed = FollowedGrid(
        grid,
        patience=recipe.federation.patience,
        on_sent=watch.sent,
        on_reply=watch.replied,
        on_offline=watch.offline,
    )
    buffer = recipe.pace.buffer
    waiting = BufferedGrid(followed, buffer=buffer) if buffer else followed
    signed = CharteredGrid(waiting, sign_charter(key, run=run, recipe=recipe))
    attendance = Attendance(
        signed,
        grid,
        card=card,
        weights=partial(store.get, card.sha256),
        wanted=_wanted(recipe, card, before),
        settings=recipe.federation,
        watch=watch,
        expected=expected,
        timeout=recipe.transport.timeout or LONGEST_WAIT,
    )
    attendance.gather()
    fixed = before or _settled(recipe, run, attendance)
    fixed.save(folder)

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "rounds":
            watch.failed(story.entries[-1].record.failures if story.entries else {})
            watch.tell(round=done, rounds=total)

    story = Story(Terms(recipe, card, fixed.classes), fixed.plan, folder, progress)
    watch.tell(state="running", said="", round=story.state.round, rounds=story.rounds)
    started = time.perf_counter()
    _tell(story, signed, attendance, watch)
    return _conclude(story, time.perf_counter() - started)


def _wanted(recipe: Recipe, card: BackboneCard, fixed: Fixed | None) -> Wanted:
    """Return what sites are asked for, as far as it is known before they are."""
    plan, classes = (fixed.plan, fixed.classes) if fixed else (None, recipe.data.classes)
    if fixed is None and recipe.privacy.model == "site":
        plan = plan_of(recipe, mean_size=0, sites=recipe.federation.least_sites)
    return Wanted(card.digest(), card.width + 1, classes, plan=plan)


def _settled(recipe: Recipe, run: str, attendance: Attendance) -> Fixed:
    """Fix classes and plan; where noise is shared out, it depends on how many sites there are."""
    roll = attendance.roll
    wanted = replace(attendance.wanted, classes=roll.classes)
    if recipe.privacy.model == "distributed":
        plan = plan_of(recipe, mean_size=0, sites=len(roll.present))
        wanted = replace(wanted, plan=plan)
        attendance.ask_again(wanted)
    attendance.wanted = wanted
    return Fixed(run, wanted.classes, wanted.plan)


def _tell(story: Story, grid: Grid, attendance: Attendance, watch: Watch) -> None:
    """Run the rounds; one that too few sites answered is tried again, and no site pays twice."""
    recipe = story.terms.recipe
    settings = replace(
        story.settings(),
        timeout=recipe.transport.timeout or LONGEST_WAIT,
        least_updates=recipe.federation.least_updates,
        # who is asked for both answers neither before he has trained
        together=not recipe.transport.secure and not recipe.pace.buffer,
    )
    tried, at = 0, story.state.round
    while not story.finished:
        try:
            there = _Counted(attendance, story)
            story.tell(grid, there, settings=settings, real=True)
        except TransportError as error:
            tried = tried + 1 if story.state.round == at else 1
            at = story.state.round
            if error.code not in _VOID or tried > recipe.federation.retries:
                raise
            _log.warning("%s It is tried again.", error.problem)
            watch.tell(said=f"{error.problem} It is tried again ({tried}).")
            story.take_up()
            time.sleep(_PAUSE)


@dataclass
class _Counted:
    """Asks who is there, and tells the watch what every site has spent so far."""

    attendance: Attendance
    story: Story

    def __post_init__(self) -> None:
        self._epsilon_of = EpsilonOf(self.story.plan)

    def __call__(self, round_: int) -> Mapping[int, str]:
        """Return the sites that are there."""
        story, watch = self.story, self.attendance.watch
        if story.plan is not None:
            for name, counts in story.spent().items():
                watch.site(name, epsilon=self._epsilon_of(counts))
        told = [e.record.accuracy for e in story.entries if e.record.evaluations]
        watch.tell(accuracy=told[-1] if told and told[-1] == told[-1] else None)
        return self.attendance(round_)


def _conclude(story: Story, seconds: float) -> RunResult:
    names = {name for entry in story.entries for name in entry.record.cohort}
    result = told_result(
        story.terms,
        story.entries,
        plan=story.plan,
        labels=story.labels or Labels(),
        status="finished",
        rounds=story.rounds,
        kept=story.kept,
        seconds={"rounds": seconds},
        names=sorted(names),
    )
    return write_result(story, result, html=True)
