"""What a run is compared with: the same run without privacy, and sites that train alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flwr.serverapp.strategy import FedAvg

from fedtl.apps.client import make_client_app
from fedtl.launch.attacks import attacked
from fedtl.launch.federation import Federation, Sites
from fedtl.launch.progress import Progress
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.cohort import train_cohort
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.train.counts import evaluate
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays, Update
from fedtl.wire.messages import Request, task_config

MAX_LOCAL_SITES = 200


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracies to compare with; empty where nothing was compared.

    Attributes
    ----------
    without_privacy : float or None
        Global head of the same run without privacy, on all held-out examples.
    local_own, local_all : dict of str to float
        Heads that sites trained alone and without privacy (they release nothing): on their own
        held-out examples, and on everybody's.
    seconds : float
        What the comparisons took.
    """

    without_privacy: float | None = None
    local_own: dict[str, float] = field(default_factory=dict)
    local_all: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def compare(federation: Federation, progress: Progress) -> Comparison:
    """Run the comparisons that the recipe asks for."""
    started = time.perf_counter()
    wanted = federation.recipe.compare
    without = None
    if wanted.without_privacy and federation.recipe.privacy.enabled:
        without = _without_privacy(federation, progress)
    own: dict[str, float] = {}
    everyone: dict[str, float] = {}
    if wanted.local_only and len(federation.rows) <= MAX_LOCAL_SITES:
        own, everyone = _local_only(federation, progress)
    return Comparison(without, own, everyone, time.perf_counter() - started)


def _without_privacy(federation: Federation, progress: Progress) -> float:
    recipe = federation.recipe
    strategy = strategy_of(recipe)
    rounds = Declared.of(strategy).rounds or recipe.train.rounds
    site_of = Sites.of(federation, {})
    grid = StackedGrid(make_client_app(site_of), federation.names, site_of=site_of)
    names = {node: d.name for node, d in describe_sites(grid).items()}
    outcome = run(
        attacked(recipe, grid, names),
        strategy,
        sites=names,
        start=State(0, federation.terms.initial_head(strategy)),
        config=task_config(TrainTask.of(recipe), None, seed=recipe.seed),
        settings=Settings(
            rounds=rounds,
            sites_per_round=recipe.train.sites_per_round,
            seed=recipe.seed,
            evaluate_every=0,
        ),
        on_round=lambda state, _: progress("without privacy", state.round, rounds),
    )
    return outcome.history[-1].accuracy


def _local_only(
    federation: Federation, progress: Progress
) -> tuple[dict[str, float], dict[str, float]]:
    own, everyone = {}, {}
    sites = [federation.site(at) for at in range(len(federation.rows))]
    classes = len(federation.manifest.classes)
    for at, site in enumerate(sites):
        if not len(site.examples[0]):
            continue
        head = _alone(federation, at)
        results = [evaluate(head, other.examples[1], classes) for other in sites]
        right = sum(r.right for r in results)
        everyone[site.name] = right / max(sum(r.n for r in results), 1)
        if results[at].n:
            own[site.name] = results[at].accuracy
        progress("local only", at + 1, len(sites))
    return own, everyone


def _alone(federation: Federation, at: int) -> Arrays:
    """Train one site for as many rounds and steps as the federation had, without privacy."""
    head: Arrays = federation.terms.initial_head(FedAvg())
    task = TrainTask.of(federation.recipe)
    site = federation.site(at)
    for round_ in range(1, task.rounds + 1):
        request = Request(dict(head), task, None, round_, federation.recipe.seed)
        (answer,) = train_cohort([site], request, [0])
        if isinstance(answer, Update):
            head = answer.arrays
    return head
