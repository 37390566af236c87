"""Whitening in two rounds, then momentum: what the server computes, and that it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.privacy.plan import Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.strategies.fedwhiten import FedWhiten
from fedtl.train.additive import shapes
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.train.whitening import MEAN, PULL, spectrum
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import ADDITIVE, TRAIN, task_config

D, N, SITES, C = 30, 200, 4, 5


def data(seed: int, n: int = N) -> Examples:
    """Unit features with a large common mean and two loud directions that say nothing."""
    rng, shared = np.random.default_rng([3, seed]), np.random.default_rng(0)
    centres, loud = shared.normal(size=(C, D)), shared.normal(size=(2, D))
    y = rng.integers(0, C, n)
    x = 0.35 * centres[y] + rng.normal(size=(n, 2)) @ loud * 1.5 + 0.2 * rng.normal(size=(n, D))
    x += 4 * shared.normal(size=D)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.hstack([x, np.full((n, 1), 0.1)]).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(y))


def federation() -> tuple[StackedGrid, dict[int, str]]:
    sites = [
        Site(
            name=f"site-{at}",
            classes=tuple("abcde"),
            width=D + 1,
            backbone="toy",
            load=lambda at=at: (data(at), data(100 + at)),  # type: ignore[misc]
            simulated=True,
        )
        for at in range(SITES)
    ]
    site_of = lambda context: sites[int(context.node_config["partition-id"])]  # noqa: E731
    grid = StackedGrid(make_client_app(site_of), [s.name for s in sites], site_of=site_of)
    return grid, {node: d.name for node, d in describe_sites(grid).items()}


def play(
    strategy: Any, *, rounds: int = 30, epsilon: float | None = None, secure: bool = False
) -> Outcome:
    grid, names = federation()
    head = initial_head("linear", D + 1, C, directions=getattr(strategy, "directions", None))
    plan = None
    if epsilon is not None:
        parts = [
            Release(
                mechanism=name,
                clip_norm=0.5 if name == "gradients" else 1.0,
                count=rounds - 2 if name == "gradients" else 1,
                public_size=N,
                honest_sites=SITES if secure else 0,
            )
            for name in ("mean", "covariance", "gradients")
        ]
        plan = plan_for(*parts, epsilon=epsilon, delta=1e-5, shares=strategy.shares)
    secured = SecureAggregationGrid(
        grid,
        names=names,
        threshold=1.0,
        shapes={
            TRAIN: {"weight": head["weight"].shape},
            **{kind: shapes(name, D + 1, C) for kind, name in ADDITIVE.items()},
        },
    )
    return run(
        secured if secure else grid,
        strategy,
        sites=names,
        start=State(0, head),
        config=task_config(TrainTask(rounds=rounds, lr=0.3), plan, seed=1),
        settings=Settings(rounds, evaluate_every=0),
    )


def test_the_whitening_is_that_of_the_pooled_data() -> None:
    outcome = play(FedWhiten(directions=6), rounds=3)
    x = torch.cat([data(at).x for at in range(SITES)]).double().numpy()[:, :-1]
    mean = x.mean(axis=0)
    np.testing.assert_allclose(outcome.head[MEAN], mean, atol=1e-6)
    u = x - mean
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    expected = spectrum(u.T @ u / len(u), noise_sd=0.0, directions=6).pull
    projected = (
        outcome.head[PULL] @ outcome.head[PULL].T,
        expected @ expected.T,
    )  # columns may change sign
    np.testing.assert_allclose(*projected, atol=1e-3)


def test_the_server_descends_with_momentum_and_the_sites_rate_cancels() -> None:
    """Golden numbers: v <- 0.5 v + g, W <- W - eta v."""
    strategy = FedWhiten(momentum=0.5, speed=2.0)
    strategy.evenness = 3.0
    strategy.weight = np.zeros((1, 2), np.float32)
    strategy._read(3, ConfigRecord({"task": TrainTask(rounds=6, lr=0.1).to_json(), "plan": ""}))
    first = strategy._step(np.array([[-0.1, 0.2]], np.float32))  # g = (1, -2)
    np.testing.assert_allclose(first, [[-1.5, 3.0]], rtol=1e-6)  # eta = 2 * 3 / 4
    strategy.weight = first
    second = strategy._step(first - np.float32(0.1) * np.array([[1.0, 0.0]], np.float32))
    np.testing.assert_allclose(second, first - 1.5 * np.array([[1.5, -1.0]]), rtol=1e-5)


@pytest.mark.parametrize("secure", [False, True], ids=["site", "distributed"])
def test_it_learns_under_privacy_what_plain_averaging_does_not(secure: bool) -> None:
    whitened = play(FedWhiten(), epsilon=6.0, secure=secure).history[-1].accuracy
    grid, names = federation()
    average = run(
        grid,
        make_strategy("fedavg"),
        sites=names,
        start=State(0, initial_head("linear", D + 1, C)),
        config=task_config(
            TrainTask(rounds=30, lr=30.0),
            plan_for(
                Release(mechanism="gradients", clip_norm=0.5, count=30, public_size=N),
                epsilon=6.0,
                delta=1e-5,
            ),
            seed=1,
        ),
        settings=Settings(30, evaluate_every=0),
    )
    assert whitened > 0.9
    assert whitened > average.history[-1].accuracy + 0.05


def test_shared_noise_gives_a_better_head_than_noise_at_every_site() -> None:
    losses = {
        secure: play(FedWhiten(), epsilon=0.7, secure=secure).history[-1].loss
        for secure in (False, True)
    }
    assert losses[True] < losses[False]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"directions": 0}, "directions = 0"),
        ({"damping": -1.0}, "damping"),
        ({"momentum": 1.0}, "momentum"),
        ({"speed": 0.0}, "speed"),
        ({"mean_share": 0.5, "covariance_share": 0.5}, "mean_share"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        make_strategy("fedwhiten", options)


def test_a_head_of_toys_starts_without_whitening() -> None:
    head = initial_head("linear", 7, 3, directions=4)
    assert (head[MEAN].shape, head[PULL].shape) == ((6,), (6, 4))
    assert not any(values.any() for values in head.values())
