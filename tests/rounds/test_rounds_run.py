"""The loop over rounds: cohorts by name, evaluation when due, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, Strategy
from toys import NAMES, WIDTH, Toys, toy_plan

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError, TransportError
from fedtl.rounds import Outcome, RoundRecord, Settings, State, run
from fedtl.rounds.sites import check_agreement, describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Description
from fedtl.wire.arrays import pack
from fedtl.wire.messages import task_config


def play(
    toys: Toys | None = None,
    strategy: Strategy | None = None,
    *,
    rounds: int = 3,
    private: bool = False,
    **settings: object,
) -> Outcome:
    toys = toys or Toys()
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    return run(
        grid,
        strategy or make_strategy("fedavg"),
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, initial_head("linear", WIDTH, 3)),
        config=task_config(TrainTask(rounds, 2, lr=0.5), toy_plan() if private else None, seed=1),
        settings=Settings(rounds, **settings),  # type: ignore[arg-type]
    )


def test_cohorts_are_drawn_by_name_from_the_seed() -> None:
    """Node ids are random on Flower's runtimes, names are not; their order must not matter."""
    first = play(seed=4, sites_per_round=2, rounds=6)
    again = play(Toys(names=NAMES[::-1]), seed=4, sites_per_round=2, rounds=6)
    cohorts = [r.cohort for r in first.history]
    assert [r.cohort for r in again.history] == cohorts
    assert all(len(c) == 2 and list(c) == sorted(c) for c in cohorts)
    assert len(set(cohorts)) > 2
    other = play(seed=5, sites_per_round=2, rounds=6)
    assert [r.cohort for r in other.history] != cohorts


def test_every_site_is_drawn_equally_often() -> None:
    history = play(seed=1, sites_per_round=2, rounds=240, evaluate_every=0).history
    counts = [sum(name in r.cohort for r in history) for name in NAMES]
    assert max(abs(c - 80) for c in counts) < 4.5 * (240 * (1 / 3) * (2 / 3)) ** 0.5


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (0, [5])])
def test_evaluations_come_when_due_and_always_at_the_end(every: int, due: list[int]) -> None:
    history = play(rounds=5, evaluate_every=every).history
    assert [r.round for r in history if r.evaluations] == due
    assert all(np.isnan(r.accuracy) and np.isnan(r.loss) for r in history if not r.evaluations)
    assert set(history[-1].evaluations) == set(NAMES)
    assert history[-1].accuracy > 0.8


def test_releases_are_counted_over_rounds() -> None:
    history = play(private=True, rounds=3).history
    assert [set(r.releases.values()) for r in history] == [{2}, {4}, {6}]


def test_a_round_without_any_usable_update_says_who_failed_and_how() -> None:
    with pytest.raises(TransportError, match=r"round 1 \(site-a: data.unreadable") as error:
        play(Toys(faults=dict.fromkeys(NAMES, "unreadable")))
    assert "resume" in error.value.next_step


def test_sites_whose_evaluation_fails_are_left_out_of_it() -> None:
    history = play(Toys(faults={"site-b": "broken"})).history
    assert set(history[-1].evaluations) == set(NAMES) - {"site-b"}
    assert {r.failures["site-b"] for r in history} == {"site.failed"}


class Wrong(FedAvg):
    """Returns what it was told to."""

    def __init__(self, arrays: ArrayRecord | Exception) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.arrays = arrays

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        if isinstance(self.arrays, Exception):
            raise self.arrays
        return self.arrays, None


@pytest.mark.parametrize(
    "returned",
    [
        pack({"weight": np.full((3, WIDTH), np.nan, np.float32)}),
        pack({"weight": np.zeros((3, WIDTH + 1), np.float32)}),
        pack({"other": np.zeros((3, WIDTH), np.float32)}),
        ValueError("beta is too large"),
        ZeroDivisionError("no weights"),
    ],
    ids=["nan", "shape", "name", "error", "division"],
)
def test_a_strategy_that_goes_wrong_is_named(returned: ArrayRecord | Exception) -> None:
    with pytest.raises(StrategyError, match=r"Wrong .* in round 1") as error:
        play(strategy=Wrong(returned))
    assert error.value.next_step


def test_a_strategy_that_returns_nothing_keeps_the_head() -> None:
    class Keeps(Wrong):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[None, None]:
            return None, None

    assert not play(strategy=Keeps(pack({}))).head["weight"].any()


def test_a_strategy_may_skip_evaluation() -> None:
    history = play(strategy=make_strategy("fedavg", {"fraction_evaluate": 0.0})).history
    assert all(not r.evaluations for r in history)


def test_what_a_callback_raises_stops_the_run_after_a_whole_round() -> None:
    done: list[RoundRecord] = []

    def stop(state: State, record: RoundRecord) -> None:
        done.append(record)
        if record.round == 2:
            raise KeyboardInterrupt

    toys = Toys()
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    with pytest.raises(KeyboardInterrupt):
        run(
            grid,
            make_strategy("fedavg"),
            sites={n: d.name for n, d in describe_sites(grid).items()},
            start=State(0, initial_head("linear", WIDTH, 3)),
            config=task_config(TrainTask(5), None, seed=1),
            settings=Settings(5),
            on_round=stop,
        )
    assert [r.round for r in done] == [1, 2]


def test_rounds_of_sites_without_held_out_examples_go_on() -> None:
    """Small sites may hold nothing out; Flower's averages would divide by zero."""
    toys = Toys()
    for name in NAMES:
        site = toys.site(name)
        train, held_out = site.load()
        empty = type(held_out).of(held_out.x[:0], held_out.y[:0])
        site.load = lambda train=train, empty=empty: (train, empty)  # type: ignore[misc]
    history = play(toys).history
    assert all(e.n == 0 for e in history[-1].evaluations.values())
    assert np.isnan(history[-1].accuracy)


def described(name: str, **changes: object) -> Description:
    values = {"classes": ("x", "y"), "backbone": "b", "width": 3, "version": "1"}
    return Description(name, **(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"classes": ("y", "x")}, {"backbone": "c" * 99}, {"width": 4}, {"version": "2"}],
    ids=lambda c: next(iter(c)),
)
def test_sites_that_cannot_work_together_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(TransportError, match=r"two has .*, one has ") as error:
        check_agreement([described("one"), described("two", **changes)])
    assert error.value.code == f"disagree.{next(iter(changes))}"
    check_agreement([described("one"), described("two")])


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(TransportError, match="More than one site is called 'one'"):
        check_agreement([described("one"), described("two"), described("one")])


def test_missing_sites_are_counted() -> None:
    toys = Toys()
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    with pytest.raises(TransportError, match="6 of 9 sites are there") as error:
        describe_sites(grid, at_least=9, wait=0.2)
    assert error.value.code == "sites.missing"
    nobody = Toys(faults=dict.fromkeys(NAMES, "unbuilt"))
    grid = StackedGrid(make_client_app(nobody), NAMES, site_of=nobody)
    with pytest.raises(TransportError, match="No site answered"):
        describe_sites(grid)
