"""Compressed moves: what arrives, what is made up for later, and what nobody can smuggle in."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import FedtlError, RecipeError
from fedtl.wire.compress import Compression, compress, expand

HOWS = [
    Compression("top_k", share=0.1),
    Compression("top_k", share=1.0),
    *[Compression("quantise", bits=bits) for bits in (1, 2, 4, 8)],
    Compression("low_rank", rank=1),
    Compression("low_rank", rank=3),
]
each = pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.kind}-{how.share}-{how.bits}")
SHAPES = {"weight": (5, 40), "bias": (5,)}


def move(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def size(arrays: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(v, dtype=np.float64)) for v in arrays.values())))


@each
def test_what_is_not_sent_is_made_up_for(how: Compression) -> None:
    """Error feedback: over many rounds the sum that arrived is the sum that was meant."""
    memory: Any = {}
    arrived = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    meant = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for round_ in range(200):
        now = move(round_ % 3)
        sent, memory = compress(now, how, memory)
        for name, values in expand(sent, how, SHAPES).items():
            arrived[name] += values
            meant[name] += now[name]
    gap = size({name: arrived[name] - meant[name] for name in SHAPES})
    assert gap < 0.15 * size(meant)
    lost = size({k: v for k, v in memory.items() if k.startswith("lost/")})
    assert gap == pytest.approx(lost, rel=1e-2, abs=1e-3)


@each
@given(seed=st.integers(0, 99), rows=st.integers(1, 7), columns=st.integers(1, 30))
def test_any_shape_comes_back(how: Compression, seed: int, rows: int, columns: int) -> None:
    shapes = {"a": (rows, columns), "b": (columns,)}
    sent, _ = compress(move(seed, shapes), how, {})
    back = expand(sent, how, shapes)
    assert {name: values.shape for name, values in back.items()} == shapes
    assert all(values.dtype == np.float32 for values in back.values())


def test_top_k_sends_the_largest_as_they_are() -> None:
    sent, memory = compress(
        {"w": np.array([[1.0, -5.0], [0.5, 3.0]], np.float32)}, Compression("top_k", share=0.5), {}
    )
    np.testing.assert_array_equal(sent["values"], [-5.0, 3.0])
    np.testing.assert_array_equal(sent["at"], [1, 3])
    np.testing.assert_array_equal(memory["lost/w"], [[1.0, 0.0], [0.5, 0.0]])


@pytest.mark.parametrize(("bits", "step"), [(2, 2 / 3), (4, 2 / 15), (8, 2 / 255)])
def test_quantised_numbers_are_half_a_step_away_at_most(bits: int, step: float) -> None:
    how, now = Compression("quantise", bits=bits), move(1)
    sent, memory = compress(now, how, {})
    assert sum(v.nbytes for v in sent.values()) <= 205 * bits / 8 + 2 * 4 + 2
    for name, values in now.items():
        top = np.abs(values).max()
        assert np.abs(memory[f"lost/{name}"]).max() <= top * step / 2 * 1.001


def test_one_bit_is_the_sign_and_the_mean_size() -> None:
    how = Compression("quantise", bits=1)
    sent, _ = compress({"w": np.array([1.0, -3.0, 2.0], np.float32)}, how, {})
    np.testing.assert_array_equal(expand(sent, how, {"w": (3,)})["w"], [2.0, -2.0, 2.0])


def test_a_matrix_of_that_rank_comes_back_whole() -> None:
    rng = np.random.default_rng(2)
    low = (rng.normal(size=(8, 2)) @ rng.normal(size=(2, 50))).astype(np.float32)
    how = Compression("low_rank", rank=2)
    sent, _ = compress({"w": low}, how, {})
    assert sum(v.nbytes for v in sent.values()) == 4 * 2 * 58
    np.testing.assert_allclose(expand(sent, how, {"w": (8, 50)})["w"], low, atol=1e-4)


@pytest.mark.parametrize(
    ("how", "change"),
    [
        (HOWS[0], {"at": np.array([0, 300], np.uint32)}),
        (HOWS[0], {"at": np.zeros(21, np.uint32)}),
        (HOWS[0], {"at": np.arange(21, dtype=np.uint32)[::-1]}),
        (HOWS[0], {"at": np.arange(200, 221, dtype=np.uint32)}),
        (HOWS[0], {"values": np.zeros((21, 1), np.float32)}),
        (HOWS[0], {"values": np.zeros(205, np.float32)}),
        (HOWS[0], {"values": np.zeros(21, np.uint32)}),
        (HOWS[0], {"more": np.zeros(1, np.float32)}),
        (HOWS[0], {"at": None}),
        (HOWS[5], {"codes/weight": np.zeros(10, np.uint8)}),
        (HOWS[5], {"codes/weight": np.zeros(200, np.float32)}),
        (HOWS[5], {"top/weight": np.zeros(2, np.float32)}),
        (HOWS[5], {"top/other": np.zeros(1, np.float32)}),
        (HOWS[6], {"left/weight": np.zeros((5, 2), np.float32)}),
        (HOWS[6], {"right/weight": np.zeros((1_000_000, 1), np.float32)}),
        (HOWS[6], {"whole/bias": np.zeros(6, np.float32)}),
        (HOWS[6], {"whole/weight": np.zeros((5, 40), np.float32)}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_such_a_move_is_refused(how: Compression, change: dict[str, Any]) -> None:
    sent, _ = compress(move(0), how, {})
    forged = {name: v for name, v in {**sent, **change}.items() if v is not None}
    with pytest.raises(FedtlError) as error:
        expand(forged, how, SHAPES)
    assert error.value.code == "update.shape"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "topk"}, "Did you mean 'top_k'"),
        ({"kind": "top_k", "share": 0.0}, "share = 0.0"),
        ({"kind": "top_k", "share": float("nan")}, "share = nan"),
        ({"kind": "quantise", "bits": 3}, "bits = 3"),
        ({"kind": "low_rank", "rank": 0}, "rank = 0"),
    ],
)
def test_values_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Compression(**options)
    with pytest.raises(FedtlError) as error:
        Compression.from_json(json.dumps(options))
    assert error.value.code == "message.invalid"


@each
def test_a_compression_survives_json(how: Compression) -> None:
    assert Compression.from_json(how.to_json()) == how
