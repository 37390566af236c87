"""Bad sites send what the attack says, everybody else what they trained, on every Grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from toys import WIDTH, Toys, toy_plan

from fedtl.apps.client import make_client_app
from fedtl.errors import RecipeError, TransportError
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.attacks import STRENGTHS, AttackedGrid, alie_strength, bad_sites
from fedtl.transport.local import LocalGrid
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import EVALUATE, STATISTICS, TRAIN, task_config

TOYS = Toys(names=tuple(f"site-{at:02d}" for at in range(10)))
BAD = ("site-02", "site-05", "site-07")
NODES = dict(enumerate(TOYS.names, 1000))
HEAD = {"weight": np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)}
TASK = TrainTask(rounds=6, steps=3, lr=0.5)
each = pytest.mark.parametrize("kind", STRENGTHS)


def stacked() -> StackedGrid:
    toys = replace(TOYS, sites={})
    return StackedGrid(make_client_app(toys), toys.names, site_of=toys)


def local() -> LocalGrid:
    toys = replace(TOYS, sites={})
    return LocalGrid(make_client_app(toys), toys.names)


def against(grid: Grid, kind: str, **options: Any) -> AttackedGrid:
    return AttackedGrid(grid, **{"kind": kind, "bad": BAD, "names": NODES, "seed": 4, **options})


def content(*, round_: int = 2, plan: bool = False) -> RecordDict:
    config = task_config(TASK, toy_plan() if plan else None, seed=4)
    config["server-round"] = round_
    return RecordDict({"arrays": pack(HEAD), "config": config})


def messages(kind: str = TRAIN, **options: Any) -> list[Message]:
    sent = content(**options)
    return [Message(sent, node, kind) for node in NODES]


def updates(replies: Any) -> dict[str, np.ndarray]:
    """Return name to update, ``[C, d]`` float64."""
    return {
        NODES[r.metadata.src_node_id]: unpack(r.content["arrays"])["weight"].astype(np.float64)
        - HEAD["weight"]
        for r in replies
    }


HONEST = updates(stacked().send_and_receive(messages()))
GOOD = np.stack([v for name, v in HONEST.items() if name not in BAD])


@each
def test_only_bad_sites_answers_are_exchanged(kind: str) -> None:
    found = updates(against(stacked(), kind).send_and_receive(messages()))
    assert list(found) == list(HONEST)
    for name, update in found.items():
        changed = bool(np.any(update != HONEST[name]))
        assert changed is (name in BAD), name


def test_what_is_sent_is_what_the_papers_say() -> None:
    def sent(kind: str, **options: Any) -> np.ndarray:
        return updates(against(stacked(), kind, **options).send_and_receive(messages()))["site-05"]

    own = HONEST["site-05"]
    close = np.testing.assert_allclose
    close(sent("sign_flip"), -4 * own, atol=1e-5)
    close(sent("sign_flip", strength=1.5), -1.5 * own, atol=1e-5)
    close(sent("scaling"), 10 * own, atol=1e-5)
    close(sent("ipm", strength=2.0), -2 * GOOD.mean(axis=0), atol=1e-5)
    close(sent("alie", strength=1.5), GOOD.mean(axis=0) - 1.5 * GOOD.std(axis=0), atol=1e-5)
    z = alie_strength(10, 3)
    close(sent("alie"), GOOD.mean(axis=0) - z * GOOD.std(axis=0), atol=1e-5)
    noise = sent("gaussian", strength=7.0)
    assert 4 < np.sqrt(np.mean(noise**2) / np.mean(own**2)) < 10
    assert abs(np.corrcoef(noise.ravel(), own.ravel())[0, 1]) < 0.6
    idle = sent("free_rider")
    assert 5e-4 < np.sqrt(np.mean(idle**2) / np.mean(HEAD["weight"] ** 2)) < 2e-3


def test_alies_strength_by_hand() -> None:
    """n = 50, f = 24: two good ones must lie further out of 26, and Φ(1.4261) = 24 / 26."""
    assert alie_strength(50, 24) == pytest.approx(1.42608, abs=1e-5)
    assert alie_strength(10, 3) == pytest.approx(0.18001, abs=1e-5)  # Φ = 4 / 7
    assert np.isfinite([alie_strength(n, f) for n in range(1, 12) for f in range(n + 1)]).all()


def test_colluding_sites_send_the_same_and_noisy_ones_do_not() -> None:
    for kind, same in (("alie", True), ("ipm", True), ("gaussian", False), ("free_rider", False)):
        found = updates(against(stacked(), kind).send_and_receive(messages()))
        assert bool(np.all(found["site-02"] == found["site-07"])) is same


@each
def test_the_same_is_sent_on_every_grid_every_time_and_another_in_another_round(kind: str) -> None:
    first = updates(against(stacked(), kind).send_and_receive(messages()))
    for grid in (stacked(), local()):
        again = updates(against(grid, kind).send_and_receive(messages()))
        for name, update in first.items():
            np.testing.assert_array_equal(update, again[name])
    later = updates(against(stacked(), kind).send_and_receive(messages(round_=3)))
    random = kind in ("gaussian", "free_rider")
    assert bool(np.any(later["site-05"] != first["site-05"])) is random
    if random:
        other = updates(against(stacked(), kind, seed=5).send_and_receive(messages()))
        assert np.any(other["site-05"] != first["site-05"])


@each
def test_pushed_messages_are_attacked_when_they_are_pulled(kind: str) -> None:
    grid = against(stacked(), kind)
    ids = list(grid.push_messages(messages()))
    pulled = updates(grid.pull_messages(ids))
    expected = updates(against(stacked(), kind).send_and_receive(messages()))
    for name, update in expected.items():
        np.testing.assert_array_equal(pulled[name], update)
    assert list(grid.pull_messages(ids)) == []


def test_metrics_releases_and_evaluations_stay_as_they_are() -> None:
    """A bad site trained and paid like any other, and is asked like any other."""
    grid = against(stacked(), "sign_flip")
    honest = {
        r.metadata.src_node_id: dict(r.content["metrics"].items())  # type: ignore[union-attr]
        for r in stacked().send_and_receive(messages(plan=True))
    }
    for got in grid.send_and_receive(messages(plan=True)):
        assert dict(got.content["metrics"].items()) == honest[got.metadata.src_node_id]  # type: ignore[union-attr]
    told = [list(g.send_and_receive(messages(EVALUATE))) for g in (grid, stacked())]
    for got, expected in zip(*told, strict=True):
        assert dict(got.content["metrics"].items()) == dict(expected.content["metrics"].items())  # type: ignore[union-attr]


def test_sums_are_attacked_as_they_are() -> None:
    asked = [Message(RecordDict({"config": content()["config"]}), n, STATISTICS) for n in NODES]
    honest = {
        NODES[r.metadata.src_node_id]: unpack(r.content["arrays"])  # type: ignore[arg-type]
        for r in stacked().send_and_receive(asked)
    }
    for got in against(stacked(), "sign_flip", strength=2.0).send_and_receive(asked):
        name = NODES[got.metadata.src_node_id]
        for key, values in unpack(got.content["arrays"]).items():  # type: ignore[arg-type]
            factor = -2.0 if name in BAD else 1.0
            np.testing.assert_allclose(values, factor * honest[name][key], rtol=1e-6)


def test_a_bad_site_that_fails_fails() -> None:
    toys = replace(TOYS, faults={"site-05": "unreadable"}, sites={})
    grid = against(StackedGrid(make_client_app(toys), toys.names, site_of=toys), "alie")
    replies = {NODES[r.metadata.src_node_id]: r for r in grid.send_and_receive(messages())}
    assert replies["site-05"].error.reason == "data.unreadable"
    assert len(replies) == 10


def test_where_all_are_bad_they_know_each_other() -> None:
    grid = against(stacked(), "ipm", bad=TOYS.names, strength=1.0)
    found = updates(grid.send_and_receive(messages()))
    everyone = np.stack(list(HONEST.values())).mean(axis=0)
    np.testing.assert_allclose(found["site-00"], -everyone, atol=1e-5)


def test_bad_sites_are_drawn_by_seed_and_name() -> None:
    names = [f"n{at}" for at in range(20)]
    drawn = bad_sites(names, share=0.3, seed=1)
    assert drawn == bad_sites(reversed(names), share=0.3, seed=1)
    assert (len(drawn), drawn <= set(names)) == (6, True)
    assert len({bad_sites(names, share=0.3, seed=s) for s in range(5)}) > 1
    tenths = [len(bad_sites(names[:10], share=s / 10, seed=2)) for s in range(1, 10)]
    assert tenths == list(range(1, 10))
    with pytest.raises(RecipeError, match=r"attack\.share = 0\.1 of 5 sites"):
        bad_sites(names[:5], share=0.1, seed=1)


def test_an_unknown_attack_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError) as error:
        against(stacked(), "sing_flip")
    assert "Did you mean 'sign_flip'" in error.value.next_step


def played(grid: Grid, strategy: str, **options: Any) -> float:
    outcome = run(
        grid,
        make_strategy(strategy, options),
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, initial_head("linear", WIDTH, 3)),
        config=task_config(TASK, None, seed=4),
        settings=Settings(6, seed=2, evaluate_every=0),
    )
    return outcome.history[-1].accuracy


def test_sealed_answers_are_out_of_reach() -> None:
    shapes = {TRAIN: {"weight": (3, WIDTH)}}
    grid = SecureAggregationGrid(
        against(stacked(), "sign_flip"), names=NODES, shapes=shapes, threshold=0.6
    )
    with pytest.raises(TransportError, match=r"sealed, and no attack can reach") as error:
        played(grid, "fedavg")
    assert error.value.code == "attack.sealed"


@pytest.mark.parametrize("make", [local, stacked])
def test_three_of_ten_ruin_an_average_and_no_robust_rule(make: Callable[[], Grid]) -> None:
    assert played(make(), "fedavg") > 0.9
    assert played(against(make(), "sign_flip"), "fedavg") < 0.4
    for name in ("median", "rfa", "centred_clipping", "krum", "multikrum"):
        assert played(against(make(), "sign_flip"), name) > 0.85, name
    assert played(against(make(), "sign_flip"), "trimmed_mean", share=0.3) > 0.85


def test_seven_of_ten_ruin_them_all() -> None:
    """Beyond the breakdown point a rule that still held would mean that nothing was attacked."""
    for name in ("median", "rfa", "centred_clipping", "krum", "bulyan"):
        attack = against(stacked(), "sign_flip", bad=TOYS.names[:7])
        assert played(attack, name) < 0.5, name
