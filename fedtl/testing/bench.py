"""A small real federation: six sites with examples of their own, the real apps, Grids and loop."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.apps.client import make_client_app
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.rounds import Outcome, RoundRecord, Settings, State, run
from fedtl.rounds.sites import CohortGrid, describe_sites
from fedtl.site.memory import Memory
from fedtl.site.site import Site
from fedtl.strategies.declared import Declared
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head, trained_part
from fedtl.train.task import TrainTask
from fedtl.train.threads import one_thread
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.messages import task_config

NAMES = tuple(f"site-{letter}" for letter in "abcdef")
CLASSES = ("left", "middle", "right")
WIDTH = 8
SEED = 5
ROUNDS = 3
"""Rounds of gradients that are looked at."""


@lru_cache(maxsize=64)
def examples_of(at: int, n: int) -> Examples:
    """Return ``n`` examples of length one, and a bias: sites have the classes unevenly."""
    rng = np.random.default_rng([3, at, n])
    centres = np.random.default_rng(1).normal(size=(len(CLASSES), WIDTH - 1))
    y = rng.choice(len(CLASSES), n, p=np.roll([0.6, 0.3, 0.1], at))
    x = centres[y] + 0.6 * rng.normal(size=(n, WIDTH - 1))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.concatenate([x, np.full((n, 1), 0.1)], axis=1).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(y))


class Sites:
    """``site_of`` of sites that remember nothing of other runs.

    Parameters
    ----------
    folder : Path, optional
        Where sites remember, if more than one process answers for them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._made: dict[str, Site] = {}

    def __reduce__(self) -> tuple[type[Sites], tuple[Path | None]]:
        """Leave the sites behind: another process makes its own."""
        return Sites, (self._folder,)

    def __call__(self, context: Context) -> Site:
        """Return the site behind a context."""
        known = NAMES[int(context.node_config["partition-id"])]
        name = str(context.node_config.get("site", known))  # Flower's runtimes give numbers only
        if name not in self._made:
            at = NAMES.index(name)
            self._made[name] = Site(
                name=name,
                classes=CLASSES,
                width=WIDTH,
                backbone="bench",
                load=lambda: (examples_of(at, 20 + 7 * at), examples_of(at, 15)),
                simulated=True,
                memory=Memory(self._folder and self._folder / name, alone=self._folder is None),
            )
        return self._made[name]


class NumberedGrid(LocalGrid):
    """A ``LocalGrid`` whose nodes have other numbers, as random as those of Flower's runtimes.

    There a node's number is drawn anew whenever its site comes back; here before every round.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(make_client_app(Sites()), names)
        self._inside: dict[int, int] = {}
        self.renumbered(0)

    def renumbered(self, round_: int) -> dict[int, str]:
        """Draw the numbers of a round, and return what the sites behind them are called."""
        drawn = np.random.default_rng([17, round_]).permutation(10_000)[: len(self._names)]
        numbers = [7_000_000 + int(n) for n in drawn]
        self._inside = dict(zip(numbers, super().get_node_ids(), strict=True))
        return dict(zip(numbers, self._names, strict=True))

    def get_node_ids(self) -> list[int]:
        """Return the numbers, in the order of the names."""
        return list(self._inside)

    def context(self, node_id: int) -> Context:
        """Return the context of a node."""
        return super().context(self._inside.get(node_id, node_id))


def local_grid(names: Sequence[str] = NAMES) -> LocalGrid:
    """Return the reference Grid over the first sites."""
    return LocalGrid(make_client_app(Sites()), names)


def cohort_grid(names: Sequence[str] = NAMES) -> CohortGrid:
    """Return what the loop shows a strategy of the first sites."""
    grid = local_grid(names)
    return CohortGrid(grid, list(grid.get_node_ids()))


def stacked_grid(names: Sequence[str] = NAMES) -> StackedGrid:
    """Return the Grid that trains all sites at once."""
    sites = Sites()
    return StackedGrid(make_client_app(sites), names, site_of=sites)


def rounds_of(strategy: Strategy, gradients: int = ROUNDS) -> int:
    """Return how many rounds are looked at: all sums, and some rounds of gradients."""
    says = Declared.of(strategy)
    return says.rounds or len(says.mechanisms) + (gradients - 1 if says.gradients else 0)


def start_head(strategy: Strategy) -> dict[str, np.ndarray]:
    """Return a head that is not zero: a sum of zeros looks like their mean."""
    says = Declared.of(strategy)
    head = initial_head(
        says.head_kind or "linear",
        WIDTH,
        len(CLASSES),
        hidden=WIDTH,
        directions=says.directions,
        feature_map=says.feature_map,
    )
    rng = np.random.default_rng(11)
    drawn = {name: 0.3 * rng.normal(size=v.shape) for name, v in trained_part(head).items()}
    return {**head, **{name: values.astype(np.float32) for name, values in drawn.items()}}


def config_of(
    strategy: Strategy, *, plan: PrivacyPlan | None = None, steps: int = 2
) -> ConfigRecord:
    """Return the config of the training messages."""
    task = TrainTask(rounds=rounds_of(strategy), steps=steps, lr=0.5)
    return task_config(task, plan, seed=SEED)


def plan_of(strategy: Strategy, *, honest_sites: int = 0) -> PrivacyPlan:
    """Return a plan with visible noise for everything that a strategy asks for."""
    releases = tuple(
        Release(
            mechanism=mechanism,
            clip_norm=0.5,
            noise_multiplier=1.0,
            count=100,
            public_size=40.0,
            honest_sites=honest_sites,
        )
        for mechanism in Declared.of(strategy).mechanisms
    )
    return PrivacyPlan(1e4, 1e-5, releases)


def play(
    strategy: Strategy,
    grid: Grid,
    *,
    rounds: int = 0,
    start: State | None = None,
    config: ConfigRecord | None = None,
    sites_per_round: int = 0,
    evaluate_every: int = 0,
    sites: Mapping[int, str] | Callable[[int], Mapping[int, str]] | None = None,
    on_round: Callable[[State, RoundRecord], None] = lambda state, record: None,
) -> Outcome:
    """Run the rounds of a strategy on a Grid with the real loop."""
    return run(
        grid,
        strategy,
        sites=sites or {node: told.name for node, told in describe_sites(grid).items()},
        start=start or State(0, start_head(strategy)),
        config=config or config_of(strategy),
        settings=Settings(
            rounds or rounds_of(strategy),
            sites_per_round=sites_per_round,
            seed=SEED,
            evaluate_every=evaluate_every,
        ),
        on_round=on_round,
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep a law's traces to itself: logs of provoked failures, generators, garbage.

    Some of Flower's strategies call ``gc.collect`` for every reply, a third of a second each where
    torch is loaded.
    """
    loggers = [logging.getLogger(name) for name in ("flwr", "fedtl")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    gc.freeze()
    try:
        with one_thread(), other_generators(SEED):
            yield
    finally:
        gc.unfreeze()
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def other_generators(seed: int) -> Iterator[None]:
    """Set the generators that a whole process shares, and put them back."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def differs(one: Arrays, other: Arrays, *, tolerance: float = 0.0) -> str:
    """Say how two heads differ by more than a tolerance, relative to the largest entry; or nothing.

    Examples
    --------
    >>> import numpy as np
    >>> differs({"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, 1.0])}, tolerance=0.1)
    "'w' is off by 1 (largest entry 1, tolerance 0.1)"
    """
    if one.keys() != other.keys():
        return f"tensors {sorted(one)} instead of {sorted(other)}"
    for name, values in other.items():
        if one[name].shape != values.shape:
            return f"'{name}' has shape {one[name].shape} instead of {values.shape}"
        scale = float(np.abs(values).max(initial=0.0))
        off = float(np.abs(one[name].astype(np.float64) - values).max(initial=0.0))
        if not off <= tolerance * (scale or 1.0):
            return (
                f"'{name}' is off by {off:.3g} (largest entry {scale:.3g}, tolerance {tolerance:g})"
            )
    return ""
