"""Wrappers around strategies: what goes through, what is forwarded, what is remembered."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.serverapp.strategy import FedAvg, Strategy
from replies import heads, reply, request
from toys import WIDTH, Toys, toy_plan

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.recipe import load_recipe
from fedtl.rounds import Settings, State, run
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.sites import describe_sites
from fedtl.rounds.summable import check_summable
from fedtl.strategies import make_strategy, strategy_of
from fedtl.strategies.around import Around
from fedtl.strategies.fedwhiten import FedWhiten
from fedtl.strategies.robust.bucketing import Bucketing, bucket_means
from fedtl.strategies.robust.nnm import NearestNeighbourMixing, nearest_means
from fedtl.strategies.updates import replaced
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import task_config

CONFIG = task_config(TrainTask(3, 3, lr=0.5), None, seed=5)


def grid_of(n: int = 6, **options: Any) -> StackedGrid:
    toys = Toys(names=tuple(f"site-{at:02d}" for at in range(n)), **options)
    return StackedGrid(make_client_app(toys), toys.names, site_of=toys)


def asked(strategy: Strategy, head: Arrays, *, round_: int = 1, sites: int = 6) -> None:
    config = copy.deepcopy(CONFIG)
    list(strategy.configure_train(round_, pack(head), config, grid_of(sites)))


def aggregated(strategy: Strategy, replies: Sequence[Message], round_: int = 1) -> np.ndarray:
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert arrays is not None
    return unpack(arrays)["weight"]


def play(strategy: Strategy, *, rounds: int = 3, start: State | None = None, **options: Any) -> Any:
    grid = grid_of()
    directions = getattr(strategy, "directions", None)
    return run(
        grid,
        strategy,
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=start or State(0, initial_head("linear", WIDTH, 3, directions=directions)),
        config=CONFIG,
        settings=Settings(rounds, seed=2),
        **options,
    )


class Halved(Around):
    """Counts rounds, and halves what sites have trained."""

    def received(self, server_round: int, replies: Sequence[Message]) -> Sequence[Message]:
        self.memory["rounds"] = self.memory.get("rounds", 0) + 1
        halves = []
        for got in replies:
            weight = unpack(got.content["arrays"])["weight"]  # type: ignore[arg-type]
            halves.append(replaced(got, {"weight": weight / 2}))
        return halves


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedprox", "median", "krum", "fedwhiten"])
def test_a_wrapper_that_does_nothing_changes_nothing(name: str) -> None:
    plain, inside = make_strategy(name), Around(make_strategy(name))
    np.testing.assert_array_equal(play(plain).head["weight"], play(inside).head["weight"])


def test_what_fedtl_asks_of_a_strategy_is_the_inner_ones() -> None:
    inner = FedWhiten(directions=7, min_evaluate_nodes=2)
    outer = Around(Around(inner))
    assert outer.mechanisms == inner.mechanisms
    assert outer.shares == inner.shares
    assert (outer.directions, outer.min_evaluate_nodes) == (7, 2)
    assert not hasattr(outer, "rounds")
    assert Around(make_strategy("fed3r")).rounds == 1
    assert not hasattr(outer, "needs_updates")
    assert NearestNeighbourMixing(FedAvg()).needs_updates


def test_wrappers_are_copied_and_sent_to_other_processes() -> None:
    strategy = make_strategy("fedadam", around={"nnm": {"bad": 1}})
    for other in (copy.deepcopy(strategy), copy.copy(strategy)):
        assert other.eta == strategy.eta  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(Around(FedAvg(min_train_nodes=3)))).min_train_nodes == 3


def test_the_first_wrapper_is_the_outermost() -> None:
    """Buckets are mixed then; mixing before would give other numbers."""
    around = {"bucketing": {"size": 2}, "nnm": {"bad": 1}}
    strategy = make_strategy("fedavg", around=around)
    assert isinstance(strategy, Bucketing)
    assert isinstance(strategy.inner, NearestNeighbourMixing)
    assert isinstance(strategy.inner.inner, FedAvg)
    sent, head = heads(6, 3), heads(1, 9)[0]
    asked(strategy, head, round_=2)
    replies = [reply(1000 + at, one, weight=1.0 + at) for at, one in enumerate(sent)]
    from fedtl.rng import stream

    rows = np.array([h["weight"].ravel() - head["weight"].ravel() for h in sent], np.float64)
    buckets = bucket_means(rows, 2, stream(5, "buckets", 2))
    expected = head["weight"] + nearest_means(buckets, 1).mean(axis=0).reshape(3, 6)
    np.testing.assert_allclose(aggregated(strategy, replies, 2), expected, atol=1e-6)


def test_a_recipe_says_what_goes_around(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        "[strategy]\nname = 'median'\n[strategy.around.nnm]\nbad = 2\n"
        "[strategy.around.bucketing]\nsize = 3\n"
    )
    recipe = load_recipe(tmp_path / "r.toml")
    strategy = strategy_of(recipe)
    assert isinstance(strategy, NearestNeighbourMixing)
    assert isinstance(strategy.inner, Bucketing)
    assert (strategy.bad, strategy.inner.size) == (2, 3)
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    again = load_recipe(tmp_path / "again.toml")
    assert list(again.strategy.around) == ["nnm", "bucketing"]
    assert again.digest() == recipe.digest()
    assert recipe.digest() != load_recipe(None).digest()


OWN = "from fedtl.strategies.around import Around\nclass Mine(Around):\n    pass\n"


def test_a_wrapper_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    strategy = make_strategy("median", around={f"{tmp_path / 'mine.py'}:Mine": {}})
    assert isinstance(strategy, Around)


@pytest.mark.parametrize(
    ("around", "problem", "cure"),
    [
        ({"nmn": {}}, "Wrapper 'nmn' is unknown", "Did you mean 'nnm'"),
        ({"nnm": {"bda": 1}}, "no option 'bda'", "Did you mean 'bad'"),
        ({"nnm": {"bad": -1}}, "bad = -1", "[strategy.around.nnm]"),
        ({"bucketing": {"size": 0}}, "size = 0", "[strategy.around.bucketing]"),
        ({"fedtl.strategies.fed3r:Fed3R": {}}, "goes around no strategy", "Around"),
    ],
)
def test_what_cannot_go_around_is_refused(around: dict[str, Any], problem: str, cure: str) -> None:
    with pytest.raises(StrategyError) as error:
        make_strategy("median", around=around)
    assert problem in error.value.problem
    assert cure in error.value.next_step


def test_updates_are_mixed_and_sums_are_not() -> None:
    for name in ("fed3r", "fedwhiten"):
        with pytest.raises(StrategyError, match=r"mixes updates, and .* asks for"):
            make_strategy(name, around={"nnm": {}})


def test_wrapper_and_strategy_remember(tmp_path: Path) -> None:
    """A resumed run ends with the head of an uninterrupted one, to the last bit."""
    whole = Halved(make_strategy("fedadam"))
    expected = play(whole).head["weight"]
    first = Halved(Halved(make_strategy("fedadam")))  # the outer memory is not the inner one
    first.memory["of"] = np.arange(3.0)
    save(tmp_path, State(1, {}), first)
    other = Halved(Halved(make_strategy("fedadam")))
    load(tmp_path, other)
    np.testing.assert_array_equal(other.memory["of"], np.arange(3.0))
    assert other.inner.memory == {}

    part = Halved(make_strategy("fedadam"))
    play(part, rounds=1, on_round=lambda state, _: save(tmp_path, state, part))
    resumed = Halved(make_strategy("fedadam"))
    state = load(tmp_path, resumed)
    assert state is not None
    assert resumed.memory == {"rounds": 1}
    np.testing.assert_array_equal(play(resumed, start=state).head["weight"], expected)
    assert resumed.memory == {"rounds": 3}
    assert np.abs(expected - play(make_strategy("fedadam")).head["weight"]).max() > 1e-3


def test_mixing_weighs_alike_and_leaves_replies_alone() -> None:
    """A site that claims a million examples counts like any other."""
    strategy = make_strategy("fedavg", around={"bucketing": {"size": 1}})
    asked(strategy, heads(1)[0])
    sent = heads(6, 3)
    replies = [reply(1000 + at, one, weight=10.0**at) for at, one in enumerate(sent)]
    before = [dict(r.content["metrics"].items()) for r in replies]  # type: ignore[union-attr]
    found = aggregated(strategy, replies)
    np.testing.assert_allclose(found, np.mean([h["weight"] for h in sent], axis=0), atol=1e-6)
    for got, one, metrics in zip(replies, sent, before, strict=True):
        assert dict(got.content["metrics"].items()) == metrics  # type: ignore[union-attr]
        np.testing.assert_array_equal(unpack(got.content["arrays"])["weight"], one["weight"])  # type: ignore[arg-type]


def test_failures_pass_through_and_nothing_is_made_of_nothing() -> None:
    strategy = make_strategy("median", around={"nnm": {}, "bucketing": {}})
    asked(strategy, heads(1)[0])
    failed = Message(Error(code=1, reason="site.failed"), reply_to=request(1009))
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_train(1, [failed]) == (None, None)
    assert aggregated(strategy, [failed, reply(1001, heads(1)[0])]).shape == (3, 6)


def test_too_few_sites_for_what_is_inside_are_refused_before_they_are_asked() -> None:
    buckets = make_strategy("krum", {"bad": 1}, around={"bucketing": {"size": 2}})
    asked(buckets, heads(1)[0], sites=9)
    with pytest.raises(StrategyError, match="Bucketing with bad = 1 needs at least 9 sites"):
        asked(buckets, heads(1)[0], sites=8)
    with pytest.raises(StrategyError, match="needs at least 7 sites"):
        asked(make_strategy("median", around={"nnm": {"bad": 3}}), heads(1)[0])


def test_buckets_depend_on_seed_and_round_only() -> None:
    sent = [reply(1000 + at, one) for at, one in enumerate(heads(6, 3))]
    found = []
    for round_ in (1, 1, 2):
        strategy = make_strategy("krum", around={"bucketing": {"size": 2}})
        asked(strategy, heads(1)[0], round_=round_)
        found.append(aggregated(strategy, sent, round_))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.any(found[0] != found[2])


def test_under_secure_aggregation_wrappers_are_judged_by_what_they_look_at() -> None:
    head = initial_head("linear", 6, 3)
    check_summable(Around(make_strategy("fedavg")), head)
    check_summable(Halved(make_strategy("fedadam")), head)
    for around in ({"nnm": {}}, {"bucketing": {}}):
        with pytest.raises(StrategyError, match="single updates"):
            check_summable(make_strategy("fedavg", around=around), head)
    with pytest.raises(StrategyError, match="single updates"):
        check_summable(Around(make_strategy("rfa")), head)


def test_a_private_run_goes_through_a_wrapper() -> None:
    grid = grid_of()
    outcome = run(
        grid,
        make_strategy("median", around={"nnm": {"bad": 1}}),
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, initial_head("linear", WIDTH, 3)),
        config=task_config(TrainTask(3, 2, lr=0.5), toy_plan(), seed=5),
        settings=Settings(3, seed=2),
    )
    assert {r for record in outcome.history[-1:] for r in record.releases.values()} == {6}
    assert np.isfinite(outcome.head["weight"]).all()
