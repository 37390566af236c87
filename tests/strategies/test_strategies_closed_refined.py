"""A closed form is where gradients begin; the preconditioner serves all rounds, resumed or not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import NAMES, SIZE, WIDTH, Toys

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.strategies.fed3r import Fed3R
from fedtl.strategies.refined import Refined
from fedtl.train.heads import initial_head, logits
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import task_config

STARTS = ["fed3r", "fedncm", "fedcof", "fedlda", "fedpft"]
LR = 0.3


def play(
    strategy: Any,
    rounds: int,
    *,
    start: State | None = None,
    plan: PrivacyPlan | None = None,
    steps: int = 1,
    **options: Any,
) -> Outcome:
    toys = Toys()
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    head = initial_head("linear", WIDTH, 3, feature_map=getattr(strategy, "feature_map", None))
    return run(
        grid,
        strategy,
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=start or State(0, head),
        config=task_config(TrainTask(rounds=8, lr=LR, steps=steps), plan, seed=1),
        settings=Settings(rounds),
        **options,
    )


def pooled() -> tuple[torch.Tensor, torch.Tensor]:
    parts = [Toys().site(name).examples[0] for name in NAMES]
    return torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts])


def loss(head: Any) -> float:
    x, y = pooled()
    return float(torch.nn.functional.cross_entropy(logits(head, x), y))


@pytest.mark.parametrize("start", STARTS)
def test_round_one_is_the_closed_form_and_the_others_go_on_from_it(start: str) -> None:
    first = play(make_strategy(start), 1).head
    whole = play(make_strategy("refined", {"start": start}), 4)
    assert [record.mechanism for record in whole.history] == ["statistics"] + ["gradients"] * 3
    by_hand = play(make_strategy("fedavg"), 4, start=State(1, first))
    np.testing.assert_array_equal(whole.head["weight"], by_hand.head["weight"])
    assert loss(whole.head) < loss(first)


def test_a_temperature_scales_the_start() -> None:
    hot = play(make_strategy("refined", {"scale": 30.0}), 1).head["weight"]
    own = play(make_strategy("fed3r", {"scale": 10.0}), 1).head["weight"]
    np.testing.assert_allclose(hot, 3 * own, rtol=1e-5)
    given = Fed3R(ridge=2.0)
    Refined(start=given, scale=3.0)
    assert given.scale == 10.0


@pytest.mark.parametrize("steps", [1, 3])
def test_a_preconditioned_step_is_that_of_the_pooled_data(steps: int) -> None:
    strategy = make_strategy("refined", {"precondition": True, "rate": 2.0, "damping": 0.1})
    first = play(strategy, 1).head
    x, y = (t.double().numpy() for t in pooled())
    n, targets = len(x), np.eye(3)[y.astype(int)]
    w = first["weight"].astype(float)
    p = torch.softmax(torch.from_numpy(x @ w.T), 1).numpy()
    gradient = (p - targets).T @ x / n
    expected = w - 2 * gradient @ np.linalg.inv(x.T @ x / n + 0.1 * np.eye(WIDTH))
    strategy = make_strategy("refined", {"precondition": True, "rate": 2.0, "damping": 0.1})
    got = play(strategy, 2, steps=steps).head["weight"]
    # of several steps the mean gradient is taken, which is near that at the start
    np.testing.assert_allclose(got, expected, atol=2e-4 if steps == 1 else 2e-3)


def test_preconditioned_rounds_never_raise_the_loss_and_leave_averaging_behind() -> None:
    losses: list[float] = []
    start = {"start": "fedncm", "scale": 1.0}
    descent = {"precondition": True, "rate": 2.0, "damping": 1e-4}
    strategy = make_strategy("refined", start | descent)
    play(strategy, 8, on_round=lambda state, _: losses.append(loss(state.head)))
    assert all(after <= before + 1e-6 for before, after in pairwise(losses))
    plain = make_strategy("refined", start)
    assert losses[-1] < 0.7 * loss(play(plain, 8).head)


@pytest.mark.parametrize(
    "options",
    [{"precondition": True}, {"then": "fedadam"}, {"start": "fedlda", "then": "fedyogi"}, {}],
    ids=str,
)
@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    options: dict[str, Any], after: int, tmp_path: Path
) -> None:
    whole = play(make_strategy("refined", options), 4).head
    first = make_strategy("refined", options)
    play(first, after, on_round=lambda state, _: save(tmp_path, state, first))
    second = make_strategy("refined", options)
    state = load(tmp_path, second)
    assert state is not None
    assert state.round == after
    np.testing.assert_array_equal(play(second, 4, start=state).head["weight"], whole["weight"])


def test_without_a_reply_in_round_one_or_two_nothing_changes() -> None:
    strategy = make_strategy("refined", {"precondition": True})
    assert strategy.aggregate_train(1, []) == (None, None)
    play(strategy, 1)
    assert strategy.aggregate_train(2, []) == (None, None)


@pytest.mark.parametrize(
    "options", [{"precondition": True}, {"then": "fedavg"}, {"then": "fedadam"}], ids=str
)
def test_random_features_are_refined_too(options: dict[str, Any]) -> None:
    start = Fed3R(random_features=50, length_scale=1.5)
    first = play(Refined(start=start, **options), 1).head
    after = play(Refined(start=start, **options), 6).head
    assert after["weight"].shape == (3, 51)
    assert loss(after) < loss(first)


def test_the_budget_is_split_as_asked_and_the_noise_damps() -> None:
    strategy = make_strategy("refined", {"precondition": True, "statistics_share": 0.8})
    assert strategy.shares == {"statistics": 0.8, "gradients": pytest.approx(0.2)}  # type: ignore[attr-defined]
    parts = (
        Release(mechanism="statistics", clip_norm=3.0),
        Release(mechanism="gradients", clip_norm=0.7, count=3, public_size=SIZE),
    )
    plan = plan_for(*parts, epsilon=20.0, delta=1e-5, shares=strategy.shares)  # type: ignore[attr-defined]
    outcome = play(strategy, 4, plan=plan)
    assert np.isfinite(outcome.head["weight"]).all()
    least = 1 / np.linalg.eigvalsh(strategy.inverse).max()  # type: ignore[attr-defined]
    noise = strategy.first.noise.over(len(NAMES))  # type: ignore[attr-defined]
    assert least >= 0.99 * noise.radius(WIDTH) / (SIZE * len(NAMES))
    assert least > 0.01


def test_noise_in_every_step_is_paid_for_and_the_head_learns() -> None:
    parts = (
        Release(mechanism="statistics", clip_norm=3.0),
        Release(mechanism="gradients", clip_norm=0.7, count=3, public_size=SIZE),
    )
    plan = plan_for(*parts, epsilon=50.0, delta=1e-5, shares=Refined().shares)
    outcome = play(make_strategy("refined", {"start": "fedncm"}), 4, plan=plan)
    assert [r.releases["site-a"] for r in outcome.history] == [1, 1, 2, 3]
    assert (outcome.history[-1].accuracy or 0) > 0.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "fedavg"}, "'fedavg' is no closed form"),
        ({"start": "fedrr"}, "'fedrr' is unknown"),
        ({"then": "fed3r"}, "asks for more than gradients"),
        ({"then": "fedwhiten"}, "asks for more than gradients"),
        ({"precondition": True, "then": "fedadam"}, "precondition is for"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"damping": 0.0}, "damping = 0.0"),
        ({"scale": -1.0}, "scale = -1.0"),
        ({"statistics_share": 1.0}, "statistics_share = 1.0"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        make_strategy("refined", options)
