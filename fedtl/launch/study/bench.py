"""One cell of a study: a simulation without a folder of its own, on data that are there already."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fedtl.backbone import BackboneCard
from fedtl.data import Manifest
from fedtl.features import Features
from fedtl.launch.federation import Federation, extracted, put_together
from fedtl.launch.labels import Labels
from fedtl.launch.opening import cut, opened
from fedtl.launch.progress import Progress, silent
from fedtl.launch.quiet import quiet_flower
from fedtl.launch.simulate import tell
from fedtl.launch.story import Story
from fedtl.launch.study.cell import CellStory
from fedtl.launch.told import told_result
from fedtl.recipe import Recipe
from fedtl.recipe.tables import Pace
from fedtl.report.result import RoundResult
from fedtl.report.study_result import CellRound
from fedtl.train.threads import one_thread

Thing = TypeVar("Thing")


def data_key(recipe: Recipe) -> str:
    """Return what cells have in common that train on one and the same federation."""
    parts = (recipe.data, recipe.backbone, recipe.partition)
    return json.dumps([*(part.model_dump(mode="json") for part in parts), recipe.seed])


class Bench:
    """Runs cells, and remembers the last data, features and federation for the next one.

    On one thread: so a cell has the same bits on any number of cores, and its neighbours have
    theirs.
    """

    def __init__(self) -> None:
        self._manifest = _Last[Manifest]()
        self._features = _Last[tuple[BackboneCard, Features]]()
        self._federation = _Last[Federation]()

    def run(self, recipe: Recipe, progress: Progress = silent) -> tuple[CellRound, ...]:
        """Run one cell.

        Raises
        ------
        FedtlError
            As a simulation of the recipe would.
        """
        with one_thread(), quiet_flower():
            federation = replace(self.federation(recipe), recipe=recipe)
            story = CellStory(federation.terms, federation.plan(), Path(), progress)
            tell(story, federation, ledgers=False)
        return _rounds(story, federation)

    def federation(self, recipe: Recipe) -> Federation:
        """Return the federation of a recipe, built anew where the last one was of other data."""
        return self._federation(data_key(recipe), lambda: self._built(recipe))

    def manifest(self, recipe: Recipe) -> Manifest:
        """Return a recipe's data."""
        return self._manifest(recipe.data.model_dump_json(), lambda: opened(recipe))

    def features(
        self, recipe: Recipe, progress: Progress = silent
    ) -> tuple[BackboneCard, Features]:
        """Return the features of a recipe's data; what the cache lacks is extracted."""
        key = recipe.data.model_dump_json() + recipe.backbone.model_dump_json()
        return self._features(key, lambda: extracted(recipe, self.manifest(recipe), progress))

    def _built(self, recipe: Recipe) -> Federation:
        manifest, (card, features) = self.manifest(recipe), self.features(recipe)
        return put_together(recipe, manifest, card, features, cut(recipe, manifest))


class _Last(dict[str, Thing]):
    """Remembers one thing by its key."""

    def __call__(self, key: str, make: Callable[[], Thing]) -> Thing:
        if key not in self:
            self.clear()  # before the next is made: two may not fit
            self[key] = make()
        return self[key]


def _rounds(story: Story, federation: Federation) -> tuple[CellRound, ...]:
    told = told_result(
        federation.terms,
        story.entries,
        plan=story.plan,
        labels=story.labels or Labels(),
        status="finished",
        rounds=story.rounds,
        seconds={},
        names=federation.names,
    )
    paced = is_paced(federation.recipe)
    rounds = _accumulated(told.history, private=story.plan is not None, paced=paced)
    return tuple(replace(r, kept=True) if r.round == story.kept else r for r in rounds)


def is_paced(recipe: Recipe) -> bool:
    """Say whether a recipe's seconds of training are virtual: real ones are not added to them."""
    return recipe.pace != Pace()


def _accumulated(history: list[RoundResult], *, private: bool, paced: bool) -> Iterator[CellRound]:
    """Add up what rounds cost."""
    down = itertools.accumulate(r.bytes_down for r in history)
    up = itertools.accumulate(r.bytes_up for r in history)
    seconds = itertools.accumulate(
        r.seconds_train + (0.0 if paced else r.seconds_aggregate + r.seconds_evaluate)
        for r in history
    )
    spent = itertools.accumulate((max(r.epsilon.values(), default=0.0) for r in history), max)
    for r, d, u, s, epsilon in zip(history, down, up, seconds, spent, strict=True):
        worst = min(r.site_accuracy.items(), key=lambda item: (item[1], item[0]), default=None)
        yield CellRound(
            round=r.round,
            accuracy=r.accuracy,
            loss=r.loss,
            worst_site=worst[0] if worst else "",
            worst_accuracy=worst[1] if worst else None,
            bytes_down=d,
            bytes_up=u,
            epsilon=epsilon if private else None,
            seconds=s,
            failures=len(r.failures),
        )
