"""The check itself: what can be judged, what is said, and what a strategy may leave out."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from faults import ONE, AddsTheSteps, Momentum, SaysNothing, SumsUp
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedtl.errors import StrategyError
from fedtl.rounds import sites
from fedtl.strategies import make_strategy
from fedtl.testing import LAWS, BrokenLaws, check_strategy, checks, examine
from fedtl.testing.bench import NAMES, NumberedGrid, differs, local_grid, play, stacked_grid

JUDGED = [law for law in LAWS.values() if not law.finding]


def made() -> Strategy:
    return FedAvg(**ONE)


@pytest.mark.parametrize("given", ["fedavg", FedAvg, FedAvg(**ONE), made], ids=repr)
def test_a_name_a_class_an_instance_or_a_function_can_be_judged(given: object) -> None:
    report = examine(given, laws=["runs", "fixed point", "resume"])  # type: ignore[arg-type]
    assert [verdict.outcome for verdict in report.verdicts] == ["kept"] * 3


def test_the_given_instance_is_left_as_it_is() -> None:
    mine = Momentum()
    check_strategy(mine, laws=["runs", "order"])
    assert mine.velocity.shape == (0, 0)


@pytest.mark.parametrize("check", checks(Momentum), ids=str)
def test_every_law_can_be_a_test_of_its_own(check) -> None:  # type: ignore[no-untyped-def]
    check()


def test_a_test_of_its_own_fails_alone() -> None:
    broken = {"fixed point", "agreement", "weights"}
    for check in checks(SumsUp):
        if check.law.name in broken:
            with pytest.raises(BrokenLaws, match=r"^SumsUp breaks 1 of 1 laws\."):
                check()
        else:
            check()


def test_one_error_lists_every_broken_law_with_all_that_is_known() -> None:
    with pytest.raises(BrokenLaws) as error:
        check_strategy(AddsTheSteps)
    text = str(error.value)
    assert error.value.code == "strategy.laws"
    assert text.startswith(f"AddsTheSteps breaks 2 of {len(LAWS)} laws.")
    for law, given, expected in (
        ("agreement", "3 sites take part, and agree", "the head that 6 sites make who agree"),
        ("weights", "site-b has 16777216 times", "the head of site-b agreeing with itself"),
    ):
        assert f"* {law}: {LAWS[law].says}" in text
        assert f"  given: {given}" in text
        assert f"  expected: {expected}" in text
    assert "  seen: 'weight' is off by " in text
    assert "not_promised = {'agreement': 'why'}" in error.value.next_step


def test_wrappers_are_judged_around_a_name() -> None:
    report = examine("median", around={"bucketing": {"size": 1}}, laws=["runs", "order"])
    assert report.name == "bucketing around median"
    assert report["order"].outcome == "kept"


def test_what_is_not_promised_does_not_apply() -> None:
    reasons = {"agreement": "steps add up", "weights": "steps add up"}
    report = check_strategy(AddsTheSteps, not_promised=reasons)
    assert report["weights"].outcome == "does not apply"
    assert report["weights"].seen == "not promised: steps add up"

    class Declared(AddsTheSteps):
        not_promised = reasons

    assert not examine(Declared).broken


def test_a_strategy_that_does_not_run_is_told_so_whatever_is_asked() -> None:
    report = examine(SaysNothing, laws=["order"])
    assert [(v.law, v.outcome) for v in report.verdicts] == [
        ("runs", "broken"),
        ("order", "does not apply"),
    ]
    assert "SaysNothing.aggregate_train returned None" in report["runs"].seen


class Waits(FedAvg):
    """Samples more sites than there are, where no attribute tells: Flower waits without end."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        patient = FedAvg(min_train_nodes=9, min_available_nodes=9)
        return patient.configure_train(server_round, arrays, config, grid)


def test_a_strategy_that_would_wait_for_ever_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sites, "_CALLS", 2)
    monkeypatch.setattr(sites, "_SECONDS", 1.0)
    verdict = examine(Waits, laws=["runs"])["runs"]
    assert verdict.outcome == "broken"
    assert "waits for more sites than the 6 of this round" in verdict.seen


class Needy(FedAvg):
    def __init__(self, factor: float) -> None:
        super().__init__(**ONE)


def not_one() -> Strategy:
    return "a text"  # type: ignore[return-value]


CASES: list[tuple[object, dict[str, object], str]] = [
    ("fedagv", {}, "Strategy 'fedagv' is unknown"),
    (Needy, {}, "needs 'factor', and nothing says what"),
    (FedAvg, {"options": {"fraction": 1}}, "has no option 'fraction'"),
    (FedAvg, {"around": {"nnm": {}}}, "go around a name"),
    ("fedavg", {"around": {"nmm": {}}}, "Wrapper 'nmm' is unknown"),
    (made, {"options": {"fraction_train": 1}}, "is made already"),
    (not_one, {}, "makes a str, which is no Flower Strategy"),
    (7, {}, "7 is no strategy"),
    ("fedavg", {"laws": ["ordre"]}, "There is no law 'ordre'"),
    ("fedavg", {"not_promised": {"ordre": "no"}}, "There is no law 'ordre'"),
]


@pytest.mark.parametrize(("strategy", "more", "problem"), CASES, ids=lambda v: str(v)[:20])
def test_what_cannot_be_judged_is_named(
    strategy: object, more: dict[str, object], problem: str
) -> None:
    with pytest.raises(StrategyError, match=problem) as error:
        examine(strategy, **more)  # type: ignore[arg-type]
    assert error.value.next_step


def test_nothing_of_the_process_is_changed() -> None:
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    levels = [logging.getLogger(name).level for name in ("flwr", "fedtl")]
    examine("fedavg")
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index, union-attr]
    assert [logging.getLogger(name).level for name in ("flwr", "fedtl")] == levels


def test_every_law_says_what_it_says() -> None:
    for name, law in LAWS.items():
        assert law.name == name
        assert law.says.endswith(".")
    assert len(JUDGED) == 18
    assert len({law.says for law in LAWS.values()}) == len(LAWS)


def test_the_bench_is_a_federation_that_learns_the_same_on_each_of_its_grids() -> None:
    heads = [
        play(make_strategy("fedavg"), grid).head
        for grid in (local_grid(), stacked_grid(), NumberedGrid(NAMES))
    ]
    assert not differs(heads[1], heads[0])
    assert not differs(heads[2], heads[0])
    assert set(NumberedGrid(NAMES).get_node_ids()).isdisjoint(local_grid().get_node_ids())
    accuracy = play(make_strategy("fedavg"), stacked_grid(), rounds=8).history[-1].accuracy
    assert accuracy > 0.6


def test_differences_are_said_in_words() -> None:
    one, two = {"w": np.ones((2, 2))}, {"w": np.ones((2, 3))}
    assert differs(one, {"v": np.ones(2)}) == "tensors ['w'] instead of ['v']"
    assert differs(one, two) == "'w' has shape (2, 2) instead of (2, 3)"
    assert differs({"w": np.array([np.nan])}, {"w": np.array([1.0])}).startswith(
        "'w' is off by nan"
    )
    assert differs(one, {"w": np.ones((2, 2)) + 1e-6}, tolerance=1e-5) == ""


STEP = """
from flwr.serverapp.strategy import FedAvg
from fedtl.train.objectives import LocalObjective, ObjectiveName
from fedtl.wire.objective import with_objective

class Step(LocalObjective):
    def penalty_gradient(self, weights, local):
        return weights - local.anchors

class Mine(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        messages = super().configure_train(server_round, arrays, config, grid)
        return with_objective(messages, ObjectiveName.of(f"{__file__}:Step"))
"""


def test_a_fault_at_the_sites_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STEP)
    report = examine(f"{tmp_path / 'mine.py'}:Mine", laws=["runs"])
    seen = report["runs"].seen
    assert "No site sent a usable update in round 1 (site-a: site.failed" in seen
    assert "site-a: unexpected failure: AttributeError: " in seen
    assert seen.endswith("(mine.py, line 8)")
