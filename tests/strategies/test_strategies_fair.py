"""q-FedAvg and agnostic learning: the worst site gains, by losses that are told anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.strategies.afl import on_simplex
from fedtl.strategies.qfedavg import q_step
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.messages import task_config

C, D = 2, 3
SIZES = (200, 200, 200, 30)


def examples(at: int, seed: int) -> Examples:
    """Three large sites agree; a small one separates the classes by another feature."""
    rng = np.random.default_rng([at, seed])
    n, odd = SIZES[at], at == 3
    y = rng.integers(0, 2, n)
    x = 0.5 * rng.normal(size=(n, D))
    x[:, 1 if odd else 0] += 2 * y - 1
    x[:, 0] -= 0.6 * (2 * y - 1) * odd
    return Examples.of(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


def play(name: str, **options: Any) -> Outcome:
    there = [
        Site(
            name=f"site-{at}",
            classes=("a", "b"),
            width=D,
            backbone="toy",
            load=lambda at=at: (examples(at, 0), examples(at, 1)),  # type: ignore[misc]
            simulated=True,
        )
        for at in range(len(SIZES))
    ]
    site_of = lambda context: there[int(context.node_config["partition-id"])]  # noqa: E731
    grid = StackedGrid(make_client_app(site_of), [s.name for s in there], site_of=site_of)
    return run(
        grid,
        make_strategy(name, options),
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, initial_head("linear", D, C)),
        config=task_config(TrainTask(rounds=60, steps=3, lr=0.5), None, seed=3),
        settings=Settings(rounds=60, seed=3),
    )


def losses(outcome: Outcome) -> list[float]:
    return [e.loss for e in outcome.history[-1].evaluations.values()]


@pytest.mark.parametrize(("name", "options"), [("qfedavg", {"q": 2.0}), ("afl", {"rate": 0.05})])
def test_the_worst_site_is_better_off_than_under_fedavg(name: str, options: Any) -> None:
    plain, fair = losses(play("fedavg")), losses(play(name, **options))
    assert max(fair) < max(plain) - 0.1
    assert np.std(fair) < np.std(plain)


def test_with_q_zero_every_site_counts_alike() -> None:
    heads = [{"w": np.full(2, float(v), np.float32)} for v in (1, 2, 6)]
    head = {"w": np.zeros(2, np.float32)}
    np.testing.assert_allclose(q_step(head, heads, [9, 1, 2], q=0, path=3.0)["w"], [3, 3])


def test_a_larger_loss_counts_more_and_none_breaks_nothing() -> None:
    head, heads = {"w": np.zeros(1)}, [{"w": np.array([-1.0])}, {"w": np.array([1.0])}]
    assert q_step(head, heads, [1.0, 2.0], q=1, path=1.0)["w"][0] > 0
    assert np.isfinite(q_step(head, heads, [0.0, 0.0], q=0.5, path=1.0)["w"]).all()


@given(arrays(np.float64, st.integers(1, 8), elements=st.floats(-5, 5)))
def test_the_projection_is_the_closest_point_of_the_simplex(values: np.ndarray) -> None:
    point = on_simplex(values)
    assert point.sum() == pytest.approx(1)
    assert (point >= 0).all()
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(len(values)), 200)
    nearest = np.square(others - values).sum(1).min()
    assert np.square(point - values).sum() <= nearest + 1e-9


@pytest.mark.parametrize(
    ("name", "options"),
    [("qfedavg", {"q": -1.0}), ("afl", {"rate": 0.0}), ("qfedavg", {"q": np.nan})],
)
def test_options_out_of_range_are_named(name: str, options: Any) -> None:
    with pytest.raises(StrategyError, match=next(iter(options))):
        make_strategy(name, options)
