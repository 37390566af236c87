"""Robust strategies as a run meets them: heads, few replies, memory, the server's own data."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Strategy
from replies import heads, reply
from toys import CLASSES, WIDTH, Toys, toy_examples

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError
from fedtl.rounds import State
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.summable import check_summable
from fedtl.strategies import make_strategy
from fedtl.strategies.robust.centred_clipping import CentredClipping
from fedtl.train.fit import fit
from fedtl.train.heads import initial_head
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import task_config

TASK = TrainTask(rounds=4, steps=3, lr=0.5, schedule="linear")
RULES = [
    "median",
    "trimmed_mean",
    "krum",
    "multikrum",
    "bulyan",
    "rfa",
    "centred_clipping",
    "norm_bounding",
]


def asked(strategy: Strategy, head: Arrays, *, round_: int = 1, sites: int = 6) -> None:
    toys = Toys(names=tuple(f"site-{at:02d}" for at in range(sites)))
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    list(strategy.configure_train(round_, pack(head), task_config(TASK, None, seed=3), grid))


def combined(strategy: Strategy, sent: list[dict[str, np.ndarray]], round_: int = 1) -> Arrays:
    replies = [reply(1000 + at, head, weight=1.0 + at) for at, head in enumerate(sent)]
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert arrays is not None
    return unpack(arrays)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_sees_updates_and_moves_the_head_that_was_sent(name: str) -> None:
    """The same updates of another head move it alike: clipping around zero would not."""
    found = []
    for shift in (0.0, 64.0):
        strategy, head = make_strategy(name), heads(1, 7)[0]
        sent = [{"weight": h["weight"] + np.float32(shift)} for h in heads(7, 1)]
        asked(strategy, {"weight": head["weight"] + np.float32(shift)})
        found.append(combined(strategy, sent)["weight"] - np.float32(shift))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert np.abs(found[0] - heads(1, 7)[0]["weight"]).max() > 0.1


@pytest.mark.parametrize("name", RULES)
def test_a_head_of_several_arrays_keeps_their_names_and_shapes(name: str) -> None:
    rng = np.random.default_rng(4)
    shapes = {"hidden.weight": (2, 3), "out.weight": (4, 2), "out.bias": (4,)}
    sent = [{k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()} for _ in range(7)]
    strategy = make_strategy(name)
    asked(strategy, {k: np.zeros(s, np.float32) for k, s in shapes.items()})
    found = combined(strategy, sent)
    assert {k: v.shape for k, v in found.items()} == shapes
    assert {str(v.dtype) for v in found.values()} == {"float32"}
    if name == "median":
        expected = np.median([one["out.weight"] for one in sent], axis=0)
        np.testing.assert_allclose(found["out.weight"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan"])
def test_a_cohort_that_is_too_small_is_refused_before_anybody_is_asked(name: str) -> None:
    strategy = make_strategy(name, {"bad": 2})
    with pytest.raises(StrategyError, match=r"with bad = 2 needs at least (7|11) sites") as error:
        asked(strategy, heads(1)[0])
    assert error.value.code == "strategy.few"


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan"])
def test_where_replies_are_lost_the_head_stays(name: str) -> None:
    strategy = make_strategy(name, {"bad": 1})
    asked(strategy, heads(1)[0], sites=8)
    few = 6 if name == "bulyan" else 4
    replies = [reply(1000 + at, head) for at, head in enumerate(heads(few))]
    assert strategy.aggregate_train(1, replies) == (None, None)
    assert combined(strategy, heads(few + 1))


def test_flowers_name_of_the_number_of_bad_sites_is_known() -> None:
    sent = heads(9, 3)
    one, other = (make_strategy("krum", {key: 3}) for key in ("bad", "num_malicious_nodes"))
    np.testing.assert_array_equal(combined(one, sent)["weight"], combined(other, sent)["weight"])


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("trimmed_mean", {"share": 0.5}, "share = 0.5"),
        ("trimmed_mean", {"share": -0.1}, "share = -0.1"),
        ("krum", {"bad": -1}, "bad = -1"),
        ("krum", {"bad": 1.5}, "bad = 1.5"),
        ("bulyan", {"bad": True}, "bad = True"),
        ("multikrum", {"keep": -1}, "keep = -1"),
        ("rfa", {"iterations": 0}, "iterations = 0"),
        ("rfa", {"smoothing": 0.0}, "smoothing = 0"),
        ("centred_clipping", {"radius": -1.0}, "radius = -1"),
        ("norm_bounding", {"bound": -1.0}, "bound = -1"),
        ("fltrust", {"root": "none.npz"}, "none.npz' is no .npz file"),
    ],
)
def test_options_out_of_range_are_refused(
    name: str, options: dict[str, object], problem: str
) -> None:
    with pytest.raises(StrategyError, match=problem):
        make_strategy(name, options)


def test_centred_clipping_remembers_where_it_went(tmp_path: Path) -> None:
    """The second round's centre is the first one's update, and a checkpoint brings it back."""
    strategy = make_strategy("centred_clipping", {"radius": 1.0})
    head = {"weight": np.zeros((1, 2), np.float32)}
    asked(strategy, head)
    sent = [{"weight": np.array([[3.0, 4.0]], np.float32)}] * 3
    np.testing.assert_allclose(combined(strategy, sent)["weight"], [[0.6, 0.8]], rtol=1e-6)
    save(tmp_path, State(1, head), strategy)
    resumed = make_strategy("centred_clipping", {"radius": 1.0})
    assert load(tmp_path, resumed) is not None
    assert isinstance(resumed, CentredClipping)
    np.testing.assert_allclose(resumed.centre, [0.6, 0.8])
    for one in (strategy, resumed):
        asked(one, head, round_=2)
        np.testing.assert_allclose(combined(one, sent, 2)["weight"], [[1.2, 1.6]], rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_no_rule_runs_where_single_updates_are_hidden(name: str) -> None:
    with pytest.raises(StrategyError, match="needs the sites' single updates") as error:
        check_summable(make_strategy(name), initial_head("linear", 6, 3))
    assert error.value.code == "strategy.needs-updates"


def test_a_bound_that_no_invented_update_reaches_is_refused_as_well() -> None:
    for name, option in (("norm_bounding", "bound"), ("centred_clipping", "radius")):
        with pytest.raises(StrategyError, match="single updates"):
            check_summable(make_strategy(name, {option: 1e9}), initial_head("linear", 6, 3))
    with pytest.raises(StrategyError, match="single updates"):  # and not for too few sites
        check_summable(make_strategy("bulyan", {"bad": 9}), initial_head("linear", 6, 3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    own = toy_examples(30, 77)
    np.savez(tmp_path / "root.npz", x=own.x.numpy(), y=own.y.numpy())
    return tmp_path / "root.npz"


def own_update(head: np.ndarray, round_: int) -> np.ndarray:
    """What the server's data make of a head, with the sites' own steps."""
    import torch

    (trained,) = fit(
        torch.from_numpy(head.copy())[None],
        [toy_examples(30, 77)],
        task=TASK,
        release=None,
        streams=[SeededStreams(3, round_, "", "root")],
        round_=round_,
    )
    return np.asarray(trained.numpy() - head, np.float64)


def test_fltrust_moves_as_far_as_the_servers_data_and_never_against_them(root: Path) -> None:
    strategy = make_strategy("fltrust", {"root": str(root)})
    head = {"weight": heads(1, 2, shape=(len(CLASSES), WIDTH))[0]["weight"]}
    asked(strategy, head, round_=2)
    own = own_update(head["weight"], 2)
    aligned = {"weight": (head["weight"] + 5 * own).astype(np.float32)}
    against = {"weight": (head["weight"] - 90 * own).astype(np.float32)}
    found = combined(strategy, [aligned, against, against, against], 2)["weight"]
    np.testing.assert_allclose(found - head["weight"], own, atol=1e-5)
    only = combined(strategy, [against], 2)["weight"]
    np.testing.assert_array_equal(only, head["weight"])


def test_fltrust_prepares_raw_features_as_sites_do(root: Path, tmp_path: Path) -> None:
    from fedtl.features.prepare import prepared_rows

    raw, y = np.load(root)["x"][:, :-1], np.load(root)["y"]
    np.savez(tmp_path / "raw.npz", x=raw, y=y)
    np.savez(tmp_path / "prepared.npz", x=prepared_rows(raw), y=y)
    found = []
    for file in ("raw.npz", "prepared.npz"):
        strategy = make_strategy("fltrust", {"root": str(tmp_path / file)})
        asked(strategy, initial_head("linear", WIDTH, 3))
        found.append(combined(strategy, heads(5, 1))["weight"])
    np.testing.assert_array_equal(found[0], found[1])


def test_fltrust_refuses_a_head_that_it_cannot_train(root: Path) -> None:
    strategy = make_strategy("fltrust", {"root": str(root)})
    with pytest.raises(StrategyError, match=r"given hidden\.weight, .* Set head\.kind = 'linear'"):
        asked(strategy, initial_head("mlp", WIDTH, 3))


def test_fltrust_says_what_is_wrong_with_its_data(tmp_path: Path) -> None:
    cases = {
        "narrow": (np.ones((3, 2)), np.zeros(3, int), "2 features and classes up to 0"),
        "classes": (np.ones((3, WIDTH)), np.full(3, 9), "classes up to 9"),
    }
    for name, (x, y, problem) in cases.items():
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        strategy = make_strategy("fltrust", {"root": str(tmp_path / f"{name}.npz")})
        with pytest.raises(StrategyError, match=problem):
            asked(strategy, initial_head("linear", WIDTH, 3))
    for x, y in (
        (np.ones(3), np.zeros(3, int)),
        (np.full((3, WIDTH), np.nan), np.zeros(3, int)),
        (np.ones((3, WIDTH)), np.full(3, -1)),
        (np.ones((0, WIDTH)), np.zeros(0, int)),
    ):
        np.savez(tmp_path / "bad.npz", x=x, y=y)
        with pytest.raises(StrategyError, match=r"bad\.npz"):
            make_strategy("fltrust", {"root": str(tmp_path / "bad.npz")})


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_replies_does_not_matter(name: str) -> None:
    sent, found = heads(9, 6), []
    for order in (sent, sent[::-1], sent[4:] + sent[:4]):
        strategy = make_strategy(name)
        asked(strategy, heads(1)[0])
        found.append(combined(strategy, copy.deepcopy(order))["weight"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def test_a_rule_without_a_config_of_the_run_still_asks() -> None:
    """Flower's own loop sends an empty one."""
    toys = Toys()
    grid = StackedGrid(make_client_app(toys), toys.names, site_of=toys)
    messages = make_strategy("rfa").configure_train(1, pack(heads(1)[0]), ConfigRecord(), grid)
    assert len(list(messages)) == len(toys.names)
