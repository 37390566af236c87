"""Adjusted logits: rare classes are found, by counts that are public, summed or each site's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.rounds.summable import check_summable
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.strategies.logit_adjusted import LogitAdjustedFedAvg
from fedtl.train.fit import Examples, fit
from fedtl.train.heads import initial_head
from fedtl.train.objectives import Bound
from fedtl.train.objectives.adjusted import LogitAdjusted
from fedtl.train.task import TrainTask
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import SUMS, TRAIN, task_config

C, D, SITES = 3, 6, 4
SHARES = ((0.9, 0.08, 0.02), (0.8, 0.02, 0.18), (0.95, 0.04, 0.01), (0.9, 0.05, 0.05))


def examples(at: int, n: int, shares: Any) -> Examples:
    rng = np.random.default_rng([at, n])
    centres = np.random.default_rng(1).normal(size=(C, D))
    y = rng.choice(C, n, p=shares)
    x = centres[y] + 1.2 * rng.normal(size=(n, D))
    x[:, -1] = 1.0  # the bias, which learns how frequent a class is
    return Examples.of(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


def play(
    strategy: Any, *, plan: PrivacyPlan | None = None, secure: bool = False, rounds: int = 20
) -> Outcome:
    """Sites train on skewed labels and are judged on even ones."""
    there = [
        Site(
            name=f"site-{at}",
            classes=("a", "b", "c"),
            width=D,
            backbone="toy",
            load=lambda at=at: (  # type: ignore[misc]
                examples(at, 300, SHARES[at]),
                examples(at, 200, (1 / 3, 1 / 3, 1 / 3)),
            ),
            simulated=True,
        )
        for at in range(SITES)
    ]
    site_of = lambda context: there[int(context.node_config["partition-id"])]  # noqa: E731
    grid: Any = StackedGrid(make_client_app(site_of), [s.name for s in there], site_of=site_of)
    names = {node: d.name for node, d in describe_sites(grid).items()}
    if secure:
        shapes = {TRAIN: {"weight": (C, D)}, SUMS: {"sum": (C,)}}
        grid = SecureAggregationGrid(grid, names=names, shapes=shapes, threshold=1.0)
    return run(
        grid,
        strategy,
        sites=names,
        start=State(0, initial_head("linear", D, C)),
        config=task_config(TrainTask(rounds=rounds, steps=5, lr=1.0), plan, seed=3),
        settings=Settings(rounds=rounds, seed=3, evaluate_every=0),
    )


def accuracy(outcome: Outcome) -> float:
    return outcome.history[-1].accuracy


@pytest.mark.parametrize("prior", ["own", "all", "0.89, 0.05, 0.06"])
def test_rare_classes_are_found(prior: str) -> None:
    plain = accuracy(play(make_strategy("fedavg")))
    adjusted = accuracy(play(make_strategy("logit_adjusted", {"prior": prior})))
    assert adjusted > plain + 0.05


def test_the_counts_are_the_sites_own() -> None:
    strategy = LogitAdjustedFedAvg()
    play(strategy, rounds=2)
    exact = [np.bincount(examples(at, 300, SHARES[at]).y, minlength=C) for at in range(SITES)]
    np.testing.assert_array_equal([*strategy.counts.values()], exact)


def test_all_sites_together_need_no_more_than_a_sum() -> None:
    clear = play(make_strategy("logit_adjusted", {"prior": "all"})).head["weight"]
    strategy = LogitAdjustedFedAvg(prior="all")
    sealed = play(strategy, secure=True).head["weight"]
    np.testing.assert_allclose(sealed, clear, atol=1e-3)
    head = initial_head("linear", D, C)
    check_summable(LogitAdjustedFedAvg(prior="all"), head)
    with pytest.raises(StrategyError, match="single updates"):
        check_summable(LogitAdjustedFedAvg(prior="own"), head)


def test_private_counts_are_noised_and_do() -> None:
    strategy = LogitAdjustedFedAvg(share=0.2)
    plan = plan_for(
        Release(mechanism="sums", clip_norm=1.0),
        Release(mechanism="gradients", count=95, public_size=300.0),
        epsilon=20.0,
        delta=1e-5,
        shares=strategy.shares,
    )
    outcome = play(strategy, plan=plan)
    counts = np.array([*strategy.counts.values()])
    assert (counts != np.rint(counts)).all()
    assert accuracy(outcome) > accuracy(play(make_strategy("fedavg")))


def test_the_loss_is_cross_entropy_of_adjusted_scores() -> None:
    part, prior = examples(0, 50, SHARES[0]), torch.log(torch.tensor([0.7, 0.2, 0.1]))
    weight = torch.zeros(C, D, requires_grad=True)
    loss = functional.cross_entropy(part.x @ weight.T + 0.5 * prior, part.y)
    (slope,) = torch.autograd.grad(loss, weight)
    (found,) = fit(
        torch.zeros(1, C, D),
        [part],
        task=TrainTask(rounds=1, lr=1.0),
        release=None,
        streams=[None],  # type: ignore[list-item]
        objective=Bound(LogitAdjusted(tau=0.5), {"log_prior": prior}),
    )
    torch.testing.assert_close(-found, slope, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"tau": -1.0}, {"share": 1.0}, {"prior": "mine"}, {"prior": "0.5, -1"}], ids=str
)
def test_options_out_of_range_are_named(options: Any) -> None:
    with pytest.raises(StrategyError, match=f"{next(iter(options))} = "):
        make_strategy("logit_adjusted", options)
