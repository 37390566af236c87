"""What Flower's own robust classes do, measured: why fedtl has rules of its own.

Each of these is a reason; one that fails after an update of Flower is a reason gone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from replies import heads, reply

from fedtl.strategies import make_strategy
from fedtl.strategies.robust.krum import krum
from fedtl.wire.arrays import unpack

Heads = list[dict[str, np.ndarray]]
PAIRS: dict[str, tuple[FedAvg, Strategy]] = {
    "median": (flower.FedMedian(), make_strategy("median")),
    "trimmed": (flower.FedTrimmedAvg(beta=0.2), make_strategy("trimmed_mean", {"share": 0.2})),
    "krum": (flower.Krum(num_malicious_nodes=2), make_strategy("krum", {"bad": 2})),
    "multikrum": (
        flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4),
        make_strategy("multikrum", {"bad": 2, "keep": 4}),
    ),
    "bulyan": (flower.Bulyan(num_malicious_nodes=2), make_strategy("bulyan", {"bad": 2})),
}


@pytest.fixture(autouse=True)
def little_garbage() -> Iterator[None]:
    """Flower's Bulyan collects garbage for every reply, a third of a second beside torch."""
    gc.freeze()
    yield
    gc.unfreeze()


def combined(strategy: Strategy, sent: Heads, weights: list[float] | None = None) -> np.ndarray:
    replies = [
        reply(1000 + at, head, weight=weights[at] if weights else 1.0)
        for at, head in enumerate(sent)
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return unpack(arrays)["weight"]


def differs(name: str, seed: int, change: object = lambda head: head) -> bool:
    sent = [{"weight": change(h["weight"])} for h in heads(11, seed)]  # type: ignore[operator]
    theirs, ours = (combined(strategy, sent) for strategy in PAIRS[name])
    return bool(np.abs(theirs - ours).max() > 1e-6 * np.abs(ours).max())


@pytest.mark.parametrize("name", ["median", "trimmed", "krum", "multikrum"])
def test_on_ordinary_updates_they_are_equal(name: str) -> None:
    assert not any(differs(name, seed) for seed in range(10))


def test_bulyan_chooses_at_once_and_the_paper_one_after_the_other() -> None:
    assert differs("bulyan", 3)  # one only: each collects garbage eleven times


def test_krum_far_from_zero_is_a_lottery() -> None:
    """Updates of a thousandth on weights of a hundred; ours is the exact one."""
    found = 0
    for seed in range(10):
        sent = [{"weight": 100 + h["weight"] * np.float32(1e-3)} for h in heads(11, seed)]
        rows = np.array([h["weight"].astype(np.float64).ravel() for h in sent])
        exact = krum(rows - rows[0], 2) + rows[0]
        theirs, ours = (combined(strategy, sent).ravel() for strategy in PAIRS["krum"])
        np.testing.assert_array_equal(ours, exact.astype(np.float32))
        found += bool(np.any(theirs != ours))
    assert found > 5


def test_krum_of_huge_numbers_overflows() -> None:
    sent = heads(11)
    sent[3] = {"weight": sent[3]["weight"] * np.float32(1e25)}
    theirs, ours = PAIRS["krum"]
    with pytest.raises(RuntimeWarning, match="overflow"):  # warnings are errors in tests
        combined(theirs, sent)
    assert np.abs(combined(ours, sent)).max() < 10


def test_krum_of_too_few_takes_the_bad_ones() -> None:
    """Two bad ones of five agree: 2 f + 3 would be seven."""
    sent = [{"weight": np.full((1, 1), v, np.float32)} for v in (1, 1.1, 1.2, 50, 50)]
    theirs, ours = PAIRS["krum"]
    assert combined(theirs, sent) == 50
    assert ours.aggregate_train(1, [reply(1000 + at, h) for at, h in enumerate(sent)])[0] is None
    assert combined(make_strategy("krum"), sent) < 2


def test_multikrum_believes_how_many_examples_a_site_claims() -> None:
    theirs, ours = PAIRS["multikrum"]
    sent, claimed = heads(11), [1e9 if at % 2 else 1.0 for at in range(11)]
    assert np.abs(combined(theirs, sent, claimed) - combined(theirs, sent)).max() > 1e-3
    np.testing.assert_array_equal(combined(ours, sent, claimed), combined(ours, sent))


def test_trimming_of_a_whole_number_of_sites_may_be_one_short() -> None:
    sent = [{"weight": np.full((1, 1), 1e4 if at >= 71 else at, np.float32)} for at in range(100)]
    assert combined(flower.FedTrimmedAvg(beta=0.29), sent) > 100
    assert combined(make_strategy("trimmed_mean", {"share": 0.29}), sent) == pytest.approx(49.5)


@pytest.mark.parametrize("name", PAIRS)
def test_who_takes_the_arrays_out_of_the_replies(name: str) -> None:
    for strategy, kept in zip(PAIRS[name], ("krum" in name, True), strict=True):
        replies = [reply(1000 + at, head) for at, head in enumerate(heads(11))]
        strategy.aggregate_train(1, replies)
        assert ("weight" in replies[0].content["arrays"]) is kept
