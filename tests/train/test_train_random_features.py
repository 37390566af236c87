"""Random features are a kernel's, the same at every site, and no message asks for a flood."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedtl.errors import FedtlError, RecipeError
from fedtl.train.counts import evaluate
from fedtl.train.fit import Examples
from fedtl.train.heads import (
    check_head,
    features_of,
    initial_head,
    logits,
    map_key,
    mapped,
    trained_part,
)
from fedtl.train.random_features import MOST, RANDOM, RandomMap, random_features

Head = dict[str, np.ndarray]


def unit_rows(n: int, seed: int, d: int = 5) -> torch.Tensor:
    x = np.random.default_rng(seed).normal(size=(n, d)) + 0.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(np.column_stack([x, np.full(n, 0.1)]).astype(np.float32))


def head(seed: int = 1, dimensions: int = 40, length_scale: float = 0.7) -> Head:
    wanted = RandomMap(dimensions, length_scale)
    made = initial_head("linear", 6, 3, seed=seed, feature_map=wanted)
    drawn = np.random.default_rng(seed).normal(size=made["weight"].shape)
    return {**made, "weight": drawn.astype(np.float32)}


@pytest.mark.parametrize("length_scale", [0.3, 1.0])
def test_inner_products_are_those_of_the_gaussian_kernel(length_scale: float) -> None:
    x = unit_rows(30, 1)
    entry = RandomMap(MOST, length_scale).entry(seed=3)
    z = random_features(x, entry, MOST)
    assert z.shape == (30, MOST + 1)
    np.testing.assert_array_equal(z[:, -1], x[:, -1])
    far = torch.cdist(x, x).double() ** 2
    expected = torch.exp(-far / (2 * length_scale**2))
    got = z[:, :-1] @ z[:, :-1].T
    np.testing.assert_allclose(got, expected, atol=5 / math.sqrt(MOST))


def test_three_numbers_and_the_width_say_which_features() -> None:
    x, one = unit_rows(9, 2), head(seed=4)
    again, other = head(seed=4), head(seed=5)
    assert one[RANDOM].shape == (3,)
    np.testing.assert_array_equal(mapped(one, x), mapped(again, x))
    assert np.abs(mapped(one, x).numpy() - mapped(other, x).numpy()).max() > 0.1
    np.testing.assert_array_equal(mapped(one, x[:4]), mapped(one, x)[:4])
    keys = [map_key(h) for h in (one, again, other, head(4, 41), head(4, 40, 0.8))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert (features_of(one, 6), features_of(initial_head("mlp", 6, 3), 6)) == (41, 6)


def test_a_head_looks_at_random_features_wherever_it_is_used(tmp_path: Path) -> None:
    x, made = unit_rows(50, 3), head()
    entry = made[RANDOM]
    expected = random_features(x, entry, 40).numpy() @ made["weight"].T
    np.testing.assert_allclose(logits(made, x), expected, atol=1e-5)
    y = torch.from_numpy(expected.argmax(1))
    assert evaluate(made, Examples.of(x, y), 3).accuracy == 1.0
    assert trained_part(made).keys() == {"weight"}
    save_file(made, tmp_path / "head.safetensors")
    np.testing.assert_array_equal(
        logits(load_file(tmp_path / "head.safetensors"), x), logits(made, x)
    )


def test_angles_that_overflow_give_no_nan() -> None:
    x = unit_rows(3, 1) * torch.tensor([[1.0], [1e38], [1.0]])
    entry = np.array([5, 6, 1e-5], np.float32)
    assert bool(random_features(x, entry, 8).isfinite().all())


HOSTILE: dict[str, Callable[[Head], Head]] = {
    "too wide": lambda h: {**h, "weight": np.zeros((3, MOST + 2), np.float32)},
    "no features": lambda h: {**h, "weight": np.zeros((3, 1), np.float32)},
    "other classes": lambda h: {**h, "weight": h["weight"][:2]},
    "flat": lambda h: {**h, "weight": h["weight"].ravel()},
    "four numbers": lambda h: {**h, RANDOM: np.zeros(4, np.float32)},
    "a table": lambda h: {**h, RANDOM: np.ones((3, 1), np.float32)},
    "half a seed": lambda h: {**h, RANDOM: np.array([0.5, 1, 1], np.float32)},
    "seed below 0": lambda h: {**h, RANDOM: np.array([-1, 1, 1], np.float32)},
    "large seed": lambda h: {**h, RANDOM: np.array([1, 1 << 24, 1], np.float32)},
    "nan": lambda h: {**h, RANDOM: np.array([1, np.nan, 1], np.float32)},
    "no length": lambda h: {**h, RANDOM: np.array([1, 1, 0], np.float32)},
    "endless length": lambda h: {**h, RANDOM: np.array([1, 1, np.inf], np.float32)},
    "infinite weight": lambda h: {**h, "weight": h["weight"] * np.float32(np.inf)},
    "alone": lambda h: {RANDOM: h[RANDOM]},
    "whitened as well": lambda h: {**h, **initial_head("linear", 6, 3, directions=2)},
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_received_head_with_an_impossible_map_is_refused(what: str) -> None:
    check_head(head(), width=6, classes=3)
    with pytest.raises(FedtlError) as error:
        check_head(HOSTILE[what](head()), width=6, classes=3)
    assert error.value.code == "head.invalid"


def test_no_message_makes_a_site_fill_its_memory() -> None:
    x = unit_rows(1, 1).expand(70_000, 6)
    with pytest.raises(FedtlError, match="8192 random features of 70000") as error:
        random_features(x, RandomMap(MOST).entry(1), MOST)
    assert error.value.code == "head.large"


@pytest.mark.parametrize(
    ("dimensions", "length_scale", "said"),
    [(0, 1.0, "random_features = 0"), (MOST + 1, 1.0, "8193"), (9, 0.0, "length_scale = 0.0")],
)
def test_impossible_wishes_are_refused_by_name(
    dimensions: int, length_scale: float, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        RandomMap(dimensions, length_scale)
