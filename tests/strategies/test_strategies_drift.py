"""SCAFFOLD and FedDyn against the drift of sites that have other data: theory, bits and privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.rounds.summable import check_summable
from fedtl.site.memory import Memory
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.messages import TRAIN, task_config

C, D, SITES = 3, 5, 4
TASK = TrainTask(rounds=60, steps=20, lr=0.5, weight_decay=0.05)
START: Arrays = initial_head("linear", D, C)


def examples(at: int, n: int = 30) -> Examples:
    """Mostly one class at every site, so that their optima lie far apart."""
    rng = np.random.default_rng([5, at])
    centres = np.random.default_rng(1).normal(size=(C, D))
    y = np.where(rng.random(n) < 0.8, at % C, rng.integers(0, C, n))
    x = centres[y] + 0.8 * rng.normal(size=(n, D))
    return Examples.of(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


def sites(folder: Path | None = None) -> dict[str, Site]:
    return {
        f"site-{at}": Site(
            name=f"site-{at}",
            classes=("a", "b", "c"),
            width=D,
            backbone="toy",
            load=lambda at=at: (examples(at), examples(100 + at)),  # type: ignore[misc]
            simulated=True,
            memory=Memory(folder / str(at) if folder else None),
        )
        for at in range(SITES)
    }


def grid(*, stacked: bool = True, folder: Path | None = None) -> Grid:
    there = sites(folder)
    names = list(there)
    site_of = lambda context: there[names[int(context.node_config["partition-id"])]]  # noqa: E731
    app = make_client_app(site_of)
    return StackedGrid(app, names, site_of=site_of) if stacked else LocalGrid(app, names)


def play(
    strategy: Strategy,
    on: Grid | None = None,
    *,
    rounds: int = 60,
    start: State | None = None,
    task: TrainTask = TASK,
    plan: PrivacyPlan | None = None,
    sample: int = 0,
    secure: bool = False,
    **hooks: Any,
) -> Outcome:
    on = on or grid()
    names = {node: d.name for node, d in describe_sites(on).items()}
    if secure:
        shapes = {TRAIN: {"weight": (C, D)}}
        on = SecureAggregationGrid(on, names=names, shapes=shapes, threshold=1.0)
    return run(
        on,
        strategy,
        sites=names,
        start=start or State(0, START),
        config=task_config(task, plan, seed=3),
        settings=Settings(rounds=rounds, evaluate_every=0, seed=3, sites_per_round=sample),
        **hooks,
    )


def slope(head: Arrays) -> float:
    """Return the norm of the gradient of the federation's objective: the mean over examples."""
    weight = torch.from_numpy(np.array(head["weight"])).requires_grad_()
    parts = [examples(at) for at in range(SITES)]
    x, y = torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts])
    loss = torch.nn.functional.cross_entropy(x @ weight.T, y)
    (loss + TASK.weight_decay / 2 * weight.square().sum()).backward()
    assert weight.grad is not None
    return float(weight.grad.norm())


CORRECTED = {"scaffold": {}, "feddyn": {"alpha": 0.3}}
NAMES = pytest.mark.parametrize("name", CORRECTED)


@NAMES
def test_many_local_steps_end_at_the_optimum_of_all_data_where_fedavg_does_not(name: str) -> None:
    """The claim of both papers: drift is corrected, not averaged."""
    drifted = slope(play(make_strategy("fedavg")).head)
    corrected = slope(play(make_strategy(name, CORRECTED[name])).head)
    assert drifted > 0.02
    assert corrected < drifted / 50


@NAMES
def test_a_part_of_the_sites_in_every_round_is_enough(name: str) -> None:
    drifted = slope(play(make_strategy("fedavg"), sample=2, rounds=150).head)
    corrected = slope(play(make_strategy(name, CORRECTED[name]), sample=2, rounds=150).head)
    assert corrected < drifted / 5


def slow_scaffold(rounds: int) -> np.ndarray:
    """Algorithm 1 as the paper writes it, one site and one step after the other, in float64."""
    parts = [examples(at) for at in range(SITES)]
    x, c = torch.zeros(C, D, dtype=torch.float64), torch.zeros(C, D, dtype=torch.float64)
    own = [torch.zeros(C, D, dtype=torch.float64) for _ in parts]
    for _ in range(rounds):
        moved, changed = [], []
        for at, part in enumerate(parts):
            y = x.clone()
            for _ in range(TASK.steps):
                leaf = y.clone().requires_grad_()
                torch.nn.functional.cross_entropy(part.x.double() @ leaf.T, part.y).backward()
                assert leaf.grad is not None
                gradient = leaf.grad + TASK.weight_decay * y
                y = y - TASK.lr * (gradient - own[at] + c)
            new = own[at] - c + (x - y) / (TASK.steps * TASK.lr)
            moved.append(y - x)
            changed.append(new - own[at])
            own[at] = new
        x = x + torch.stack(moved).mean(0)
        c = c + torch.stack(changed).mean(0)
    return x.numpy()


def test_scaffold_is_the_papers_algorithm() -> None:
    found = play(make_strategy("scaffold"), rounds=3).head["weight"]
    np.testing.assert_allclose(found, slow_scaffold(3), atol=1e-5)


def slow_feddyn(rounds: int, alpha: float) -> np.ndarray:
    """Algorithm 1, with K gradient steps in place of the exact minimum."""
    parts = [examples(at) for at in range(SITES)]
    x, h = torch.zeros(C, D, dtype=torch.float64), torch.zeros(C, D, dtype=torch.float64)
    duals = [torch.zeros(C, D, dtype=torch.float64) for _ in parts]
    for _ in range(rounds):
        heads = []
        for at, part in enumerate(parts):
            y = x.clone()
            for _ in range(TASK.steps):
                leaf = y.clone().requires_grad_()
                loss = torch.nn.functional.cross_entropy(part.x.double() @ leaf.T, part.y)
                loss = loss - (duals[at] * leaf).sum() + alpha / 2 * (leaf - x).square().sum()
                (loss + TASK.weight_decay / 2 * leaf.square().sum()).backward()
                assert leaf.grad is not None
                y = y - TASK.lr * leaf.grad
            duals[at] = duals[at] - alpha * (y - x)
            heads.append(y)
        mean = torch.stack(heads).mean(0)
        h = h - alpha * (mean - x)
        x = mean - h / alpha
    return x.numpy()


def test_feddyn_is_the_papers_algorithm() -> None:
    found = play(make_strategy("feddyn", {"alpha": 0.3}), rounds=3).head["weight"]
    np.testing.assert_allclose(found, slow_feddyn(3, 0.3), atol=1e-5)


@NAMES
def test_local_and_stacked_give_the_same_bits(name: str) -> None:
    heads = [
        play(make_strategy(name, CORRECTED[name]), grid(stacked=s), rounds=4, sample=3).head
        for s in (True, False)
    ]
    np.testing.assert_array_equal(heads[0]["weight"], heads[1]["weight"])


@NAMES
def test_a_run_that_is_stopped_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    """Server state from the checkpoint, the sites' from their folders, a round done twice."""
    whole = play(make_strategy(name, CORRECTED[name]), rounds=5, sample=3).head

    def on_round(state: State, record: object) -> None:
        if state.round == 3:
            save(tmp_path, state, first)
        if state.round == 4:
            raise KeyboardInterrupt

    first = make_strategy(name, CORRECTED[name])
    with pytest.raises(KeyboardInterrupt):
        play(first, grid(folder=tmp_path), rounds=5, sample=3, on_round=on_round)
    second = make_strategy(name, CORRECTED[name])
    state = load(tmp_path, second)
    assert state is not None
    assert state.round == 3
    resumed = play(second, grid(folder=tmp_path), rounds=5, sample=3, start=state).head
    np.testing.assert_array_equal(resumed["weight"], whole["weight"])


@NAMES
def test_a_sum_is_all_the_server_needs(name: str) -> None:
    strategy = make_strategy(name, CORRECTED[name])
    check_summable(strategy, START)
    sealed = play(make_strategy(name, CORRECTED[name]), rounds=4, secure=True).head
    clear = play(strategy, rounds=4).head
    np.testing.assert_allclose(sealed["weight"], clear["weight"], atol=1e-4)


def plan(honest: int = 0) -> PrivacyPlan:
    release = Release(mechanism="gradients", count=40, public_size=30.0, honest_sites=honest)
    return plan_for(release, epsilon=50.0, delta=1e-5)


@NAMES
def test_private_runs_work_and_noise_that_is_shared_out_is_refused(name: str) -> None:
    """What a site remembers of a head without noise would show in its next update."""
    task = TrainTask(rounds=10, steps=4, lr=0.1)
    strategy = make_strategy(name, CORRECTED[name])
    head = play(strategy, rounds=10, task=task, plan=plan()).head
    assert np.isfinite(head["weight"]).all()
    assert np.abs(head["weight"]).max() > 0
    with pytest.raises(TransportError):
        play(
            make_strategy(name, CORRECTED[name]),
            rounds=1,
            task=TrainTask(rounds=1, lr=0.1),
            plan=plan(honest=SITES),
            secure=True,
        )
