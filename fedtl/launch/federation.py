"""A simulated federation: one data set, cut into sites, with features extracted once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context

from fedtl.backbone import BackboneCard
from fedtl.data import Manifest, SiteRows
from fedtl.features import Features, extract, prepare
from fedtl.launch.attacks import learned_labels
from fedtl.launch.ledgers import ledger_file
from fedtl.launch.opening import card_of, cut, opened
from fedtl.launch.plans import mean_units, plan_of
from fedtl.launch.progress import Progress, silent
from fedtl.launch.story import Spent
from fedtl.launch.terms import Terms
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.privacy.plan import PrivacyPlan
from fedtl.recipe import Recipe
from fedtl.site.memory import Memory
from fedtl.site.policy import SIMULATED
from fedtl.site.site import Site
from fedtl.train.fit import Examples

MEMORY = "memory"
"""Folder of what a site remembers for client-side steps."""
MOST_HELD = 64
"""Sites up to which a process keeps all ledgers open: each takes three file handles."""

_Frozen = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


@dataclass(frozen=True)
class Federation:
    """Everything that a simulation knows before the first round.

    Attributes
    ----------
    rows : tuple of SiteRows
        Which examples belong to which site, in name order.
    x : Tensor
        ``[n, d]`` prepared features, memory-mapped; site after site, training before held-out rows.
    y : Tensor
        ``[n]`` labels in the same order.
    seconds : dict of str to float
        What building it took, per phase.
    """

    recipe: Recipe
    manifest: Manifest
    card: BackboneCard
    features: Features
    rows: tuple[SiteRows, ...]
    x: torch.Tensor
    y: torch.Tensor
    seconds: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """Site names, in order."""
        return tuple(rows.name for rows in self.rows)

    @property
    def width(self) -> int:
        """Features per example, bias feature included."""
        return int(self.x.shape[1])

    def site(
        self,
        at: int,
        *,
        spent_before: Mapping[str, int] | None = None,
        run_folder: Path | None = None,
        alone: bool = True,
    ) -> Site:
        """Return one site; its examples are views of the shared memory-mapped features.

        With the folder of a run it keeps there what it remembers, and its ledger if the run is
        private; ``alone`` says whether no other process answers for it.
        """
        ledger, privacy, memory = None, self.recipe.privacy, None
        if run_folder is not None:
            memory = ledger_file(run_folder, self.rows[at].name).parent / MEMORY
        if run_folder is not None and privacy.enabled:
            file = ledger_file(run_folder, self.rows[at].name)
            hold = len(self.rows) <= MOST_HELD
            ledger = Ledger.open(file, durable=False, hold=hold)
        return Site(
            name=self.rows[at].name,
            classes=self.manifest.classes,
            width=self.width,
            backbone=self.card.digest(),
            load=partial(self._examples, at),
            spent_before=spent_before or {},
            simulated=True,
            ledger=ledger,
            dataset=None if ledger is None else self._dataset(self.rows[at].train, ledger),
            held_out_dataset=None if ledger is None else self._dataset(self.rows[at].test, ledger),
            policy=replace(
                SIMULATED, suppress_below=privacy.suppress_below if privacy.enabled else 0
            ),
            run=f"{self.recipe.name}-{self.recipe.digest()[:16]}",
            memory=Memory(memory, alone=alone),
        )

    def _examples(self, at: int) -> tuple[Examples, Examples]:
        start = int(self._starts[at])
        rows = self.rows[at]
        middle = start + len(rows.train)
        end = middle + len(rows.test)
        return (
            Examples.of(self.x[start:middle], self.y[start:middle], self._groups(rows.train)),
            Examples.of(self.x[middle:end], self.y[middle:end], self._groups(rows.test)),
        )

    def _groups(self, rows: np.ndarray) -> list[str] | None:
        """Return the group of each row, where groups are what is private."""
        groups, privacy = self.manifest.groups, self.recipe.privacy
        if privacy.unit == "example" or groups is None:
            return None
        return [groups[row] for row in rows]

    def _dataset(self, rows: np.ndarray, ledger: Ledger) -> DataSet:
        digests = self.manifest.digests[rows]
        return DataSet.of(digests, groups=self._groups(rows), salt=ledger.salt)

    @property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(r.train) + len(r.test) for r in self.rows)])

    @property
    def terms(self) -> Terms:
        """What a server would know of it."""
        return Terms(self.recipe, self.card, self.manifest.classes)

    def plan(self) -> PrivacyPlan | None:
        """Return the privacy plan of the run, calibrated over all its rounds; None without."""
        return plan_of(
            self.recipe,
            mean_size=mean_units(self.recipe, self.manifest, self.rows),
            sites=len(self.rows),
        )


def open_and_cut(
    recipe: Recipe, progress: Progress = silent
) -> tuple[Manifest, tuple[SiteRows, ...]]:
    """Open a recipe's data and cut them into its sites; nothing goes through the backbone."""
    manifest = opened(recipe, progress)
    return manifest, cut(recipe, manifest)


def build(recipe: Recipe, progress: Progress = silent) -> Federation:
    """Open the data, cut it into sites, and make or find the features."""
    clock = [time.perf_counter()]
    manifest, rows = open_and_cut(recipe, progress)
    clock.append(time.perf_counter())
    card, features = extracted(recipe, manifest, progress)
    federation = put_together(recipe, manifest, card, features, rows)
    clock.append(time.perf_counter())
    seconds = {"data": clock[1] - clock[0], "features": clock[2] - clock[1]}
    return replace(federation, seconds=seconds)


def extracted(
    recipe: Recipe, manifest: Manifest, progress: Progress = silent
) -> tuple[BackboneCard, Features]:
    """Make or find the features of a recipe's data."""
    body = recipe.backbone
    card = card_of(body)
    features = extract(
        manifest,
        card,
        engine=body.engine,
        precision=body.precision,
        progress=partial(progress, "features"),
    )
    return card, features


def put_together(
    recipe: Recipe,
    manifest: Manifest,
    card: BackboneCard,
    features: Features,
    rows: tuple[SiteRows, ...],
) -> Federation:
    """Return the federation of parts that are there; the training matrix is made or found."""
    order = np.concatenate([part for r in rows for part in (r.train, r.test)])
    prepared = prepare(features, order)
    return Federation(
        recipe=recipe,
        manifest=manifest,
        card=card,
        features=features,
        rows=rows,
        x=read_only(prepared.x),
        y=torch.from_numpy(manifest.labels[order]),
        seconds={},
    )


def read_only(x: np.ndarray) -> torch.Tensor:
    """Wrap a read-only map; nothing in fedtl writes into features."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(x)


class Sites:
    """``site_of`` of a federation: the site behind a Flower context, remembered.

    Travels to other processes as the recipe and the run folder only; there the federation is built
    again, from the feature cache, when the first site is asked for, and ledgers are opened again.
    """

    def __init__(self, recipe: Recipe, spent: Spent, folder: Path | None = None) -> None:
        self._recipe, self._spent, self._folder = recipe, spent, folder
        self._federation: Federation | None = None
        self._sites: dict[int, Site] = {}

    @classmethod
    def of(cls, federation: Federation, spent: Spent, folder: Path | None = None) -> Sites:
        """Return the sites of a federation that is already built.

        Parameters
        ----------
        spent : mapping of str to mapping of str to int
            Private releases of each site by mechanism before this process started; a ledger knows
            better.
        folder : Path, optional
            The run folder, where every site keeps its ledger if the run is private.
        """
        sites = cls(federation.recipe, spent, folder)
        sites._federation = taught(federation)
        return sites

    def __call__(self, context: Context) -> Site:
        """Return the site with the context's ``partition-id``."""
        at = int(context.node_config["partition-id"])
        if at not in self._sites:
            federation = self._federation or federation_of(self._recipe.model_dump_json())
            before = self._spent.get(federation.names[at])
            self._sites[at] = federation.site(
                at,
                spent_before=before,
                run_folder=self._folder,
                alone=self._federation is not None,
            )
        return self._sites[at]

    def close(self) -> None:
        """Let go of the ledgers."""
        for site in self._sites.values():
            if site.ledger is not None:
                site.ledger.close()

    def __reduce__(self) -> tuple[Callable[..., Sites], tuple[object, ...]]:
        """Leave data and features behind."""
        spent = tuple((site, tuple(counts.items())) for site, counts in self._spent.items())
        return _sites_here, (self._recipe.model_dump_json(), spent, self._folder)


@lru_cache(maxsize=2)
def _sites_here(recipe_json: str, spent: _Frozen, folder: Path | None) -> Sites:
    """Make a run's sites once per process: they come anew with every message."""
    before = {site: dict(counts) for site, counts in spent}
    return Sites(Recipe.model_validate_json(recipe_json), before, folder)


@lru_cache(maxsize=2)
def federation_of(recipe_json: str) -> Federation:
    """Build a federation once per process."""
    return taught(build(Recipe.model_validate_json(recipe_json)))


def taught(federation: Federation) -> Federation:
    """Return a federation with the labels that its sites learn from, true or not."""
    classes = len(federation.manifest.classes)
    y = learned_labels(federation.recipe, federation.y, federation.rows, classes)
    return federation if y is federation.y else replace(federation, y=y)
