"""One-shot strategies in whole runs: the promised head, alone, in a sum, under privacy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from replies import reply
from sklearn.datasets import load_digits

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.rounds.summable import check_summable
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.strategies.closed import ClosedForm
from fedtl.train.additive import shapes, statistics
from fedtl.train.classes import Noise
from fedtl.train.fit import Examples
from fedtl.train.heads import features_of, initial_head, mapped
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.messages import STATISTICS, TRAIN, task_config

NAMES = ["fed3r", "fedncm", "fedcof", "fedlda", "fedpft"]
SITES, WIDTH, CLASSES = 4, 65, 10
R = 1.01**0.5


@lru_cache
def digits() -> tuple[Examples, Examples]:
    """Training and held-out rows of the digits' pixels, prepared as features are."""
    x, y = load_digits(return_X_y=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rows = np.column_stack([x, np.full(len(x), 0.1)]).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    both = torch.from_numpy(rows[order]), torch.from_numpy(y[order])
    first, second = (
        Examples.of(*(t[part] for t in both)) for part in (slice(1437), slice(1437, None))
    )
    return first, second


def share(at: int) -> Examples:
    train = digits()[0]
    return Examples.of(train.x[at::SITES], train.y[at::SITES])


def site(at: int) -> Site:
    return Site(
        name=f"site-{at}",
        classes=tuple("0123456789"),
        width=WIDTH,
        backbone="pixels",
        load=lambda: (share(at), digits()[1]),
        simulated=True,
    )


def start_of(strategy: Any) -> dict[str, np.ndarray]:
    feature_map = getattr(strategy, "feature_map", None)
    return initial_head("linear", WIDTH, CLASSES, seed=1, feature_map=feature_map)


def play(
    strategy: Any, *, plan: PrivacyPlan | None = None, secure: bool = False, stacked: bool = True
) -> Outcome:
    sites = [site(at) for at in range(SITES)]
    site_of = lambda context: sites[int(context.node_config["partition-id"])]  # noqa: E731
    app, called = make_client_app(site_of), [s.name for s in sites]
    grid = StackedGrid(app, called, site_of=site_of) if stacked else LocalGrid(app, called)
    names = {node: d.name for node, d in describe_sites(grid).items()}
    head = start_of(strategy)
    sent = {
        STATISTICS: shapes("statistics", features_of(head, WIDTH), CLASSES),
        TRAIN: {"weight": head["weight"].shape},
    }
    return run(
        SecureAggregationGrid(grid, names=names, threshold=1.0, shapes=sent) if secure else grid,
        strategy,
        sites=names,
        start=State(0, head),
        config=task_config(TrainTask(rounds=1), plan, seed=1),
        settings=Settings(1),
    )


def accuracy(outcome: Outcome) -> float:
    return outcome.history[-1].accuracy or 0.0


LEAST = {"fed3r": 0.93, "fedncm": 0.88, "fedcof": 0.88, "fedlda": 0.94, "fedpft": 0.93}
"""Chance is 0.1."""


@pytest.mark.parametrize("name", NAMES)
def test_one_round_gives_a_head_that_knows_the_digits(name: str) -> None:
    outcome = play(make_strategy(name))
    assert len(outcome.history) == 1
    assert accuracy(outcome) > LEAST[name]
    local = play(make_strategy(name), stacked=False)
    np.testing.assert_array_equal(local.head["weight"], outcome.head["weight"])


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"fedcof"}))
def test_the_sum_is_enough(name: str) -> None:
    clear, hidden = (play(make_strategy(name), secure=s).head["weight"] for s in (False, True))
    np.testing.assert_allclose(hidden, clear, atol=2e-4 * np.abs(clear).max())


@pytest.mark.parametrize("options", [{"start": "fedcof"}, None])
def test_covariances_from_means_are_refused_where_single_means_are_hidden(
    options: dict[str, Any] | None,
) -> None:
    strategy = make_strategy("refined", options) if options else make_strategy("fedcof")
    with pytest.raises(StrategyError, match="single updates") as error:
        check_summable(strategy, initial_head("linear", WIDTH, CLASSES))
    assert error.value.code == "strategy.needs-updates"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"fedcof"}))
def test_the_others_are_not(name: str) -> None:
    check_summable(make_strategy(name), initial_head("linear", WIDTH, CLASSES))
    check_summable(make_strategy("refined", {"start": name}), initial_head("linear", WIDTH, 10))


# ---------------------------------------------------------------------------------- random features
@pytest.mark.parametrize("secure", [False, True], ids=["clear", "secure"])
def test_random_features_are_solved_for_and_evaluated_at_the_sites(secure: bool) -> None:
    outcome = play(
        make_strategy("fed3r", {"random_features": 400, "length_scale": 0.5}), secure=secure
    )
    assert accuracy(outcome) > 0.975  # a ridge head on the pixels has 0.94
    x = mapped(outcome.head, digits()[0].x).double().numpy()
    targets = np.eye(CLASSES)[digits()[0].y.numpy()]
    pooled = np.linalg.solve(x.T @ x + 0.1 * np.eye(401), x.T @ targets).T
    np.testing.assert_allclose(outcome.head["weight"], 10 * pooled, atol=2e-2 if secure else 1e-4)
    assert float(outcome.head["random.map"][2]) == 0.5


def test_random_features_bear_noise_that_the_sites_share_out() -> None:
    release = Release(mechanism="statistics", clip_norm=R, honest_sites=SITES)
    plan = plan_for(release, epsilon=20.0, delta=1e-5)
    strategy = make_strategy("fed3r", {"random_features": 100, "length_scale": 0.7})
    assert accuracy(play(strategy, plan=plan, secure=True)) > 0.85


# ----------------------------------------------------------------------------------------- privacy
FLOORS = {8.0: 0.87, 3.0: 0.85, 1.0: 0.76}
"""Of every head, on 1,437 examples with the noise of one release, on the mean of seeds."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epsilon", FLOORS)
def test_noised_statistics_still_make_a_head(name: str, epsilon: float) -> None:
    train, held_out = digits()
    release = Release(mechanism="statistics", clip_norm=R)
    release = plan_for(release, epsilon=epsilon, delta=1e-5).release("statistics")
    found = []
    for seed in range(4):
        strategy = make_strategy(name)
        assert isinstance(strategy, ClosedForm)
        strategy.noise = Noise.of(release)
        streams = SeededStreams(seed, 1, "one")
        head = strategy.solve([statistics(train, CLASSES, release=release, streams=streams)])
        scores = held_out.x.double().numpy() @ head.T
        found.append(float((scores.argmax(1) == held_out.y.numpy()).mean()))
    assert np.mean(found) > FLOORS[epsilon]


@pytest.mark.parametrize("name", NAMES)
def test_a_private_run_tells_the_strategy_its_noise(name: str) -> None:
    plan = plan_for(Release(mechanism="statistics", clip_norm=R), epsilon=8.0, delta=1e-5)
    strategy = make_strategy(name)
    outcome = play(strategy, plan=plan)
    assert accuracy(outcome) > 0.8
    assert outcome.history[0].releases == {f"site-{at}": 1 for at in range(SITES)}
    expected = Noise.of(plan.release("statistics"))
    assert strategy.noise == expected  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------- others
def answers(parts: list[Arrays]) -> list[Any]:
    return [reply(1000 + at, part, kind=STATISTICS) for at, part in enumerate(parts)]


@pytest.mark.parametrize("name", NAMES)
def test_those_that_answer_make_the_head(name: str) -> None:
    """Two of four sites: the head of these two."""
    parts = [statistics(share(at), CLASSES) for at in (1, 3)]
    strategy = make_strategy(name)
    assert strategy.aggregate_train(1, []) == (None, None)
    arrays, metrics = strategy.aggregate_train(1, answers(parts))  # type: ignore[arg-type]
    assert arrays is not None
    assert metrics is not None
    expected = strategy.scale * make_strategy(name).solve(parts)  # type: ignore[attr-defined]
    np.testing.assert_allclose(arrays["weight"].numpy(), expected, rtol=1e-5, atol=1e-5)
    assert (
        list(
            strategy.configure_train(
                2,
                arrays,
                task_config(TrainTask(1), None),
                LocalGrid(make_client_app(lambda c: site(0)), []),
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fedncm", {"scale": 0.0}, "scale = 0.0"),
        ("fedcof", {"shrinkage": 0.0}, "shrinkage = 0.0"),
        ("fedlda", {"shrinkage": 1.5}, "shrinkage = 1.5 must be from 0 to 1"),
        ("fedlda", {"shrinkage": float("nan")}, "shrinkage = nan"),
        ("fedpft", {"samples": 0}, "samples = 0"),
        ("fedpft", {"damping": -1.0}, "damping = -1.0"),
        ("fed3r", {"random_features": 10_000}, "random_features = 10000"),
        ("fed3r", {"random_features": 10, "length_scale": -1.0}, "length_scale = -1.0"),
    ],
)
def test_impossible_options_are_refused_by_name(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(StrategyError, match=said):
        make_strategy(name, options)
