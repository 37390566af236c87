"""The training matrix: the arithmetic that bounds a picture's influence, and a file to trust."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import DataError
from fedtl.features import FeatureCache, Features, prepare


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path))


def made(n: int, width: int = 5, seed: int = 0) -> tuple[Features, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width), dtype=np.float32)
    digests = rng.integers(0, 256, (n, 32)).astype(np.uint8)
    cache = FeatureCache(f"key{n}x{width}x{seed}", width)
    if n:
        cache.add(digests, notes=["-"] * n, x=x)
    rows = cache.find(digests)
    return Features(cache.key, digests, n, 0, 0.0, "", Counter(), cache, rows), x


def slowly(x: np.ndarray, mean: np.ndarray, std: np.ndarray, bias: float) -> np.ndarray:
    rows = []
    for row in x.astype(np.float64):
        centred = (row - mean) / std
        length = np.sqrt((centred**2).sum())
        rows.append([*(centred / length if length else centred), bias])
    return np.array(rows).reshape(len(x), x.shape[1] + 1)


@given(n=st.integers(1, 40), width=st.integers(1, 9), seed=st.integers(0, 9), data=st.data())
def test_rows_are_standardised_scaled_to_length_one_and_given_a_bias(
    n: int, width: int, seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    mean, std = rng.standard_normal(width), rng.random(width) + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(tmp_path_factory.mktemp("home")))
        features, x = made(n, width, seed)
        found = prepare(features, rows, mean=mean, std=std, bias=0.3).x
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slowly(x[rows], mean, std, 0.3), atol=2e-5)


def test_without_statistics_the_features_are_only_scaled() -> None:
    features, x = made(4)
    found = prepare(features, np.arange(4)).x
    np.testing.assert_allclose(found[:, :-1], x / np.linalg.norm(x, axis=1)[:, None], rtol=1e-6)
    assert (found[:, -1] == np.float32(0.1)).all()


def test_a_vector_of_zeros_stays_zero_and_does_not_become_nan() -> None:
    features, x = made(2)
    found = prepare(features, np.array([1]), mean=x[1]).x
    assert found.tolist() == [[0, 0, 0, 0, 0, np.float32(0.1)]]


def test_the_same_matrix_is_found_again_and_another_is_not() -> None:
    features, x = made(6)
    rows = np.arange(6)
    first = prepare(features, rows)
    assert (first.reused, prepare(features, rows).reused) == (False, True)
    others: list[dict[str, Any]] = [
        {"rows": rows[::-1]},
        {"rows": rows[:-1]},
        {"rows": rows, "mean": x[0]},
        {"rows": rows, "std": np.full(5, 2.0)},
        {"rows": rows, "bias": 0.2},
    ]
    paths = {first.path, *(prepare(features, **other).path for other in others)}
    assert len(paths) == 6


@pytest.mark.parametrize("damage", ["flip", "truncate", "digest"])
def test_a_damaged_matrix_is_made_again(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    features, _ = made(6)
    first = prepare(features, np.arange(6))
    wanted = first.x.copy()
    content = bytearray(first.path.read_bytes())
    content[{"flip": 0, "truncate": 1, "digest": -1}[damage]] ^= 1
    first.path.unlink()
    first.path.write_bytes(content[:-3] if damage == "truncate" else content)
    again = prepare(features, np.arange(6))
    assert not again.reused
    assert np.array_equal(again.x, wanted)
    assert "damaged" in caplog.text


def test_the_matrix_cannot_be_changed_by_accident() -> None:
    features, _ = made(3)
    with pytest.raises(ValueError, match="read-only"):
        prepare(features, np.arange(3)).x[0] = 1


def test_memory_stays_small_however_many_rows() -> None:
    features, _ = made(20_000, 200)
    tracemalloc.start()
    prepared = prepare(features, np.arange(20_000)[::-1].copy())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert prepared.x.nbytes > 16_000_000
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": np.array([0, 3])}, "rows go from 0 to 3, the features have 3"),
        ({"rows": np.array([-1])}, "rows go from -1"),
        ({"rows": np.array([0.5])}, "rows is float64"),
        ({"rows": np.array([[0]])}, "rows is int64"),
        ({"rows": np.array([0]), "mean": np.zeros(4)}, "mean has the shape"),
        ({"rows": np.array([0]), "mean": np.full(5, np.nan)}, "mean has the shape"),
        ({"rows": np.array([0]), "std": np.zeros(5)}, "std has an entry that is not positive"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], words: str) -> None:
    features, _ = made(3)
    with pytest.raises(DataError, match=words):
        prepare(features, **arguments)


def test_no_rows_give_an_empty_matrix() -> None:
    features, _ = made(3)
    assert prepare(features, np.array([], np.int64)).x.shape == (0, 6)
    assert prepare(features, np.array([], np.int64)).reused
