"""FedBuff and FedAsync in virtual time: nobody is waited for, and old moves count less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.serverapp import Grid

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.rounds import Outcome, RoundRecord, Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.attacks import AttackedGrid
from fedtl.transport.paced import Pace, PacedGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import DropoutGrid
from fedtl.wire.messages import TRAIN, task_config

C, D, SITES = 3, 6, 10
TASK = TrainTask(rounds=60, steps=3, lr=0.5)


def examples(at: int, n: int) -> Examples:
    rng = np.random.default_rng([8, at, n])
    centres = np.random.default_rng(1).normal(size=(C, D))
    y = rng.integers(0, C, n)
    x = centres[y] + 0.8 * rng.normal(size=(n, D))
    return Examples.of(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


class Recording(StackedGrid):
    """Remembers the nodes that were asked to train, call by call."""

    def answer(self, messages: Any, deadline: float | None) -> list[Message]:
        asked = [m.metadata.dst_node_id for m in messages if m.metadata.message_type == TRAIN]
        self.__dict__.setdefault("asked", []).extend([asked] if asked else [])
        return super().answer(messages, deadline)


def grid_of(pace: Pace, hurt: str = "") -> tuple[PacedGrid, dict[int, str]]:
    there = [
        Site(
            name=f"site-{at}",
            classes=("a", "b", "c"),
            width=D,
            backbone="toy",
            load=lambda at=at: (examples(at, 40), examples(at, 41)),  # type: ignore[misc]
            simulated=True,
        )
        for at in range(SITES)
    ]
    site_of = lambda context: there[int(context.node_config["partition-id"])]  # noqa: E731
    inner = Recording(make_client_app(site_of), [s.name for s in there], site_of=site_of)
    names = {node: d.name for node, d in describe_sites(inner).items()}
    around: dict[str, Grid] = {
        "": inner,
        "dropouts": DropoutGrid(inner, rate=0.4, seed=3, names=names),
        "attacked": AttackedGrid(
            inner, kind="alie", bad=frozenset({"site-1"}), names=names, seed=3
        ),
    }
    return PacedGrid(around[hurt], pace=pace, seed=3, names=names), names


def play(
    name: str,
    pace: Pace,
    *,
    rounds: int = 60,
    at_once: int = 0,
    strategy: Any = None,
    start: State | None = None,
    hurt: str = "",
    **hooks: Any,
) -> tuple[Outcome, PacedGrid]:
    grid, names = grid_of(pace, hurt)
    outcome = run(
        grid,
        strategy or make_strategy(name),
        sites=names,
        start=start or State(0, initial_head("linear", D, C)),
        config=task_config(TASK, None, seed=3),
        settings=Settings(rounds=rounds, seed=3, sites_per_round=at_once),
        **hooks,
    )
    return outcome, grid


def time_to(outcome: Outcome, loss: float) -> float:
    """Return the virtual seconds until the loss is reached."""
    seconds = 0.0
    for record in outcome.history:
        seconds += record.seconds_train
        if record.loss <= loss:
            return seconds
    return float("inf")


SLOW = Pace(buffer=0, spread=1.0)


def test_with_stragglers_a_buffer_is_there_sooner() -> None:
    """The papers' point, in virtual time: the slowest of ten sites sets a synchronous pace."""
    waiting, _ = play("fedavg", SLOW, rounds=4)
    target = waiting.history[-1].loss
    buffered, _ = play("fedbuff", Pace(buffer=3, spread=1.0), rounds=40)
    mixed, _ = play("fedasync", Pace(buffer=1, spread=1.0), rounds=120)
    assert time_to(buffered, target) < 0.5 * time_to(waiting, target)
    assert time_to(mixed, target) < 0.5 * time_to(waiting, target)


def test_a_round_ends_with_its_buffer_and_nobody_at_work_is_asked() -> None:
    outcome, grid = play("fedbuff", Pace(buffer=3, spread=1.0), rounds=12, at_once=8)
    asked: list[list[int]] = grid.inner.asked  # type: ignore[attr-defined]
    assert [len(nodes) for nodes in asked] == [8] + [3] * 11
    *others, last = outcome.history
    assert [len(record.cohort) for record in others] == [3] * 11
    assert not any(record.failures for record in others)
    # what sites are still at when the run ends has left them, or will, and nobody uses it
    late = {f"site-{node - 1000}": "reply.late" for node in grid.busy}
    assert last.failures == late
    assert len(late) == 5
    assert len(last.cohort) == 8
    working: set[int] = set()
    names = {
        node: name for node, name in zip(grid.get_node_ids(), map(str, range(SITES)), strict=True)
    }
    for nodes, record in zip(asked, others, strict=False):
        assert not working & set(nodes)
        done = {n for n in names if f"site-{names[n]}" in record.cohort}
        working = (working | set(nodes)) - done


def test_time_is_that_of_the_slowest_who_is_waited_for() -> None:
    pace = Pace(spread=0.7, seconds=5.0)
    outcome, grid = play("fedavg", pace, rounds=3)
    for record in outcome.history:
        longest = max(pace.duration(3, name, record.round) for name in record.cohort)
        assert record.seconds_train == pytest.approx(longest)
    assert grid.now == pytest.approx(sum(r.seconds_train for r in outcome.history))


def test_with_one_pace_for_all_it_is_fedavg_over_all() -> None:
    one, _ = play("fedbuff", Pace(), rounds=5)
    other, _ = play("fedavg", Pace(), rounds=5)  # sites are of one size
    np.testing.assert_allclose(one.head["weight"], other.head["weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "buffer", "hurt"),
    [("fedbuff", 3, "dropouts"), ("fedasync", 1, ""), ("fedadam", 2, "attacked")],
)
def test_a_run_that_is_stopped_ends_like_one_that_is_not(
    name: str, buffer: int, hurt: str, tmp_path: Path
) -> None:
    """Whoever is at work when it stops comes back with the very answer, at the very time."""
    pace, whole = Pace(buffer=buffer, spread=1.0, seconds=7.0), make_strategy(name)
    states: list[State] = []

    def keep(state: State, record: RoundRecord) -> None:
        states.append(state)
        if state.round == 4:
            save(tmp_path, state, whole)

    through, _ = play("", pace, strategy=whole, rounds=9, hurt=hurt, on_round=keep)
    again = make_strategy(name)
    state = load(tmp_path, again)
    assert state is not None
    flying = states[3].in_flight
    assert len(flying.works) >= 6
    assert state.in_flight.now == flying.now > 0
    assert {n: w.done_at for n, w in state.in_flight.works.items()} == {
        n: w.done_at for n, w in flying.works.items()
    }
    resumed, _ = play("", pace, strategy=again, rounds=9, hurt=hurt, start=state)
    np.testing.assert_array_equal(resumed.head["weight"], through.head["weight"])
    for ours, theirs in zip(resumed.history, through.history[4:], strict=True):
        assert (ours.round, ours.cohort) == (theirs.round, theirs.cohort)
        assert (ours.failures, ours.seconds_train) == (theirs.failures, theirs.seconds_train)
        assert ours.loss == theirs.loss


def test_a_lost_answer_fills_no_buffer() -> None:
    outcome, _ = play("fedasync", Pace(buffer=1, spread=1.0), rounds=12, hurt="dropouts")
    assert any(record.failures for record in outcome.history[:-1])
    for record in outcome.history[:-1]:
        assert len(record.cohort) - len(record.failures) == 1


def test_the_same_seed_gives_the_same_run() -> None:
    one, other = (play("fedbuff", Pace(buffer=2, spread=1.0), rounds=9)[0] for _ in range(2))
    np.testing.assert_array_equal(one.head["weight"], other.head["weight"])
    assert [r.cohort for r in one.history] == [r.cohort for r in other.history]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fedbuff", {"server_learning_rate": 0.0}),
        ("fedasync", {"alpha": 0.0}),
        ("fedasync", {"alpha": 1.5}),
        ("fedasync", {"exponent": -1.0}),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float]) -> None:
    ((option, value),) = options.items()
    with pytest.raises(StrategyError, match=f"{option} = {value}"):
        make_strategy(name, options)
