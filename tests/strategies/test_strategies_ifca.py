"""IFCA: sites whose labels mean different things find each other, in clear and privately."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.strategies.ifca import IFCA, grouped
from fedtl.testing.bench import NumberedGrid, play, stacked_grid
from fedtl.train.additive import sums
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.objectives.clustered import ClusterLosses
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.messages import task_config

SITES, ROUNDS, EACH = 8, 12, 100
NAMES = [f"site-{at}" for at in range(SITES)]
GROUPS = [at % 2 for at in range(SITES)]


@lru_cache
def digits(at: int, *, held_out: bool) -> Examples:
    """A site's part of scikit-learn's scans; sites with odd numbers call 0 what others call 3."""
    pixels, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(3).permutation(len(labels))[2 * at * EACH : 2 * (at + 1) * EACH]
    rows = rows[EACH:] if held_out else rows[:EACH]
    x = pixels[rows] / np.linalg.norm(pixels[rows], axis=1, keepdims=True)
    x = np.column_stack([x, np.full(len(x), 0.1)]).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy((labels[rows] + 7 * GROUPS[at]) % 10))


def grid() -> StackedGrid:
    there = [
        Site(
            name=name,
            classes=tuple("0123456789"),
            width=65,
            backbone="pixels",
            load=lambda at=at: tuple(digits(at, held_out=h) for h in (False, True)),  # type: ignore
            simulated=True,
        )
        for at, name in enumerate(NAMES)
    ]
    site_of = lambda context: there[int(context.node_config["partition-id"])]  # noqa: E731
    return StackedGrid(make_client_app(site_of), NAMES, site_of=site_of)


def trained(strategy: object, plan: PrivacyPlan | None = None, **options: object) -> Outcome:
    there = options.pop("grid", None) or grid()
    settings = Settings(ROUNDS, seed=3, sites_per_round=options.pop("sites_per_round", 0))  # type: ignore
    return run(
        there,  # type: ignore[arg-type]
        strategy,  # type: ignore[arg-type]
        sites={node: d.name for node, d in describe_sites(there).items()},  # type: ignore[arg-type]
        start=State(0, initial_head("linear", 65, 10)),
        config=task_config(TrainTask(rounds=ROUNDS, steps=5, lr=10.0), plan, seed=3),
        settings=settings,
        **options,  # type: ignore[arg-type]
    )


def accuracy(outcome: Outcome) -> float:
    return float(np.mean([e.accuracy for e in outcome.history[-1].evaluations.values()]))


def budget(strategy: IFCA | None) -> PrivacyPlan:
    asked = strategy.sums_rounds(ROUNDS) if strategy else 0
    steps = 5 * (ROUNDS - asked)
    gradients = Release(mechanism="gradients", clip_norm=0.5, count=steps, public_size=EACH)
    if strategy is None:
        return plan_for(gradients, epsilon=8.0, delta=1e-5)
    told = Release(mechanism="sums", clip_norm=strategy.sums_norm, count=asked)
    return plan_for(told, gradients, epsilon=8.0, delta=1e-5, shares=strategy.shares)


@pytest.mark.parametrize(("private", "least"), [(False, 0.85), (True, 0.7)])
def test_groups_are_found_and_every_site_has_a_head_that_fits(private: bool, least: float) -> None:
    strategy = IFCA()
    own = trained(strategy, budget(strategy) if private else None)
    alike = trained(make_strategy("fedavg"), budget(None) if private else None)
    assert strategy.clusters == dict(zip(NAMES, GROUPS, strict=True))
    assert accuracy(own) > least
    assert accuracy(alike) < 0.6
    np.testing.assert_array_equal(own.head["weight"], strategy.more_heads["cluster-0"]["weight"])
    if private:  # all of the plan was used, and no more
        spent = {r.mechanism: r.releases["site-0"] for r in own.history}
        assert spent == {"sums": 3, "gradients": 45}


def test_a_site_that_came_to_the_wrong_cluster_changes_it() -> None:
    strategy = IFCA(every=4)

    def confuse(state: State, _: object) -> None:
        if state.round == 4:
            strategy.clusters = dict.fromkeys(NAMES, 1)

    outcome = trained(strategy, on_round=confuse)
    assert strategy.clusters == dict(zip(NAMES, GROUPS, strict=True))
    assert accuracy(outcome) > 0.85


def test_sites_that_are_drawn_later_are_assigned_before_they_train() -> None:
    strategy = IFCA(every=2)
    outcome = trained(strategy, sites_per_round=4)
    assert {strategy.clusters[n] for n in NAMES[::2]} == {strategy.clusters["site-0"]}
    assert {strategy.clusters[n] for n in NAMES[1::2]} == {1 - strategy.clusters["site-0"]}
    assert accuracy(outcome) > 0.8


def test_a_resumed_run_knows_its_clusters_whatever_the_nodes_are_called(tmp_path: Path) -> None:
    names = tuple(f"site-{letter}" for letter in "abcdef")
    whole, first, second = IFCA(), IFCA(), IFCA()
    head = play(whole, NumberedGrid(names), rounds=4).head
    play(first, NumberedGrid(names), rounds=3, on_round=lambda s, _: save(tmp_path, s, first))
    start = load(tmp_path, second)
    assert start is not None
    assert second.clusters == first.clusters
    assert set(second.clusters) == set(names)
    again = play(second, stacked_grid(names), rounds=4, start=start).head
    np.testing.assert_array_equal(again["weight"], head["weight"])


def test_losses_by_hand_and_what_one_example_can_move() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 5.0]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1])
    heads = np.stack([2 * np.eye(2), np.zeros((2, 2)), np.eye(2)[::-1]])
    # the scores of the right class less the other's: of heads 0, 1 and 2
    ahead = np.array([[2.0, 0, -1], [2, 0, -1], [4, 0, -2]])
    exact = np.log1p(np.exp(-ahead))
    exact -= exact.mean(axis=1, keepdims=True)
    data, asked = Examples.of(x, y), ClusterLosses(clusters=3)
    sent: Arrays = {"heads": heads}
    told = sums(data, 2, mechanism="sums", release=None, statistic=asked, sent=sent)["sum"]
    np.testing.assert_allclose(told, exact.sum(0), atol=1e-12)
    release = Release(mechanism="sums", clip_norm=0.1)
    clipped = sums(data, 2, mechanism="sums", release=release, statistic=asked, sent=sent)["sum"]
    rows = exact * (0.1 / np.linalg.norm(exact, axis=1, keepdims=True))
    np.testing.assert_allclose(clipped, rows.sum(0), atol=1e-12)


def test_directions_are_clustered_whatever_their_lengths() -> None:
    rng = np.random.default_rng(1)
    ways = np.eye(3)[[0, 2, 0, 1, 2, 1]] + 0.05 * rng.normal(size=(6, 3))
    lengths = np.array([1.0, 50, 30, 2, 0.5, 80])[:, None]
    assert grouped(ways * lengths, 3, seed=4) == [0, 1, 0, 2, 1, 2]
    assert grouped(np.ones((4, 3)), 3, seed=4) == [0, 0, 0, 0]
    assert grouped(np.zeros((1, 3)), 2, seed=4) == [0]


@pytest.mark.parametrize("options", [{"clusters": 1}, {"every": 1}, {"share": 1.0}])
def test_options_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match=next(iter(options))):
        make_strategy("ifca", options)
