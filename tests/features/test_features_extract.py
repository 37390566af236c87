"""Extraction computes each picture once, goes on where it stopped, and needs no torch when warm."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedtl.backbone import BackboneCard, architectures, open_engine, resolve
from fedtl.data.images import Picture
from fedtl.data.manifest import Manifest
from fedtl.errors import BackboneError, CacheError, DataError
from fedtl.features import FeatureCache, extract, prune, usage
from fedtl.features.extract import _found as found_in


@dataclass
class Counting:
    """Pictures in memory that count how often they are read."""

    pixels: np.ndarray
    reads: int = 0
    broken: int = -1

    def read(self, row: int) -> Picture:
        self.reads += 1
        if row == self.broken:
            raise DataError("The picture 'x.png' is damaged.", code="data.unreadable")
        return Picture(self.pixels[row], "L")


def manifest_of(source: Counting) -> Manifest:
    rows = [hashlib.sha256(picture.tobytes()).digest() for picture in source.pixels]
    return Manifest(
        name="test",
        classes=("a",),
        labels=np.zeros(len(rows), np.int64),
        digests=np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32),
        groups=None,
        test=np.zeros(len(rows), np.bool_),
        source=source,
    )


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 12, 12)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackboneCard]:
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(place / "home"))
        torch.manual_seed(0)
        body = architectures.create("resnet10t", pretrained=False, num_classes=0)
        save_file(body.state_dict(), place / "w.safetensors")
        yield resolve("resnet10t", place / "w.safetensors", image_size=32)


@pytest.fixture
def card(made: BackboneCard) -> Iterator[BackboneCard]:
    yield made
    prune()


def expected(card: BackboneCard, pixels: np.ndarray) -> np.ndarray:
    with open_engine(card, "reference") as engine:
        return engine(card.transform.apply_batch([Picture(p, "L") for p in pixels]))


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_features_stand_in_the_order_of_the_manifest(card: BackboneCard, batch_size: int) -> None:
    pixels = pictures(7)
    told: list[tuple[int, int]] = []
    features = extract(
        manifest_of(Counting(pixels)),
        card,
        batch_size=batch_size,
        progress=lambda done, total: told.append((done, total)),
    )
    assert_close(features.x, expected(card, pixels))
    assert_close(features.rows(np.array([5, 0])), expected(card, pixels[[5, 0]]))
    assert told[-1] == (7, 7)
    note = "grey copied to 3 channels; enlarged from 12x12 to 32x32, nothing cropped"
    assert features.notes == {note: 7}


def test_only_new_pictures_are_read_and_computed(card: BackboneCard) -> None:
    old, new = pictures(20), pictures(10, seed=1)
    extract(manifest_of(Counting(old)), card)
    source = Counting(np.concatenate([new[:5], old, new[5:]]))
    features = extract(manifest_of(source), card)
    assert (features.computed, features.cached, source.reads) == (10, 20, 10)
    assert_close(features.x, expected(card, source.pixels))
    again = extract(manifest_of(source), card)
    assert (again.computed, again.cached, again.engine, source.reads) == (0, 30, "", 10)
    assert np.array_equal(again.x, features.x)
    assert again.notes == features.notes


def test_a_picture_that_occurs_twice_is_computed_once(card: BackboneCard) -> None:
    source = Counting(np.repeat(pictures(3), 2, axis=0))
    features = extract(manifest_of(source), card)
    assert (features.computed, len(features), source.reads) == (3, 6, 3)
    assert_close(features.x, expected(card, source.pixels))


def test_no_pictures_give_no_features(card: BackboneCard) -> None:
    features = extract(manifest_of(Counting(pictures(0))), card)
    assert features.x.shape == (0, card.width)


def test_a_broken_picture_keeps_what_was_computed_before_it(card: BackboneCard) -> None:
    source = Counting(pictures(12), broken=9)
    with pytest.raises(DataError, match=r"x\.png"):
        extract(manifest_of(source), card, batch_size=3)
    source.broken = -1
    again = extract(manifest_of(source), card)
    assert again.cached >= 6
    assert_close(again.x, expected(card, source.pixels))
    assert not any(thread.name.startswith("fedtl") for thread in threading.enumerate())


def test_each_precision_has_a_cache_of_its_own(card: BackboneCard) -> None:
    manifest = manifest_of(Counting(pictures(3)))
    exact, rough = extract(manifest, card), extract(manifest, card, precision="bf16")
    assert rough.computed == 3
    assert rough.key != exact.key
    assert "bf16" in rough.engine
    assert 0 < np.abs(exact.x - rough.x).max() < 0.1 * np.abs(exact.x).max()


@pytest.mark.parametrize(
    ("argument", "error"),
    [({"batch_size": 0}, DataError), ({"engine": "x"}, BackboneError)],
)
def test_a_bad_argument_is_named(
    card: BackboneCard, argument: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(argument)) if error is DataError else "kind"):
        extract(manifest_of(Counting(pictures(1))), card, **argument)  # type: ignore[arg-type]


def test_features_that_vanish_meanwhile_are_an_error_and_not_garbage(card: BackboneCard) -> None:
    cache = FeatureCache(card.digest(), card.width)
    with pytest.raises(CacheError, match="2 features vanished"):
        found_in(cache, manifest_of(Counting(pictures(2))).digests)


def run_child(code: str, card: BackboneCard, *, folder: Path, pixels: np.ndarray) -> list[str]:
    (folder / "card.json").write_text(card.to_json())
    np.savez(folder / "data.npz", digests=manifest_of(Counting(pixels)).digests, pixels=pixels)
    return [sys.executable, "-c", CHILD + code, str(folder)]


CHILD = """
import pathlib, sys, time
import numpy as np
from fedtl.backbone import BackboneCard
from fedtl.data.images import Picture
from fedtl.data.manifest import Manifest
from fedtl.features import extract, prepare
place = pathlib.Path(sys.argv[1])
card = BackboneCard.from_json((place / "card.json").read_bytes())
data = np.load(place / "data.npz")
pixels, digests = data["pixels"], data["digests"]
class Slow:
    def read(self, row):
        if row == 40:
            print("reached", flush=True)
        time.sleep(0.02)
        return Picture(pixels[row], "L")
n = len(digests)
labels, test = np.zeros(n, np.int64), np.zeros(n, np.bool_)
features = extract(Manifest("t", ("a",), labels, digests, None, test, Slow()), card, batch_size=4)
"""
WARM = """
prepare(features, np.arange(n))
heavy = {"torch", "timm", "flwr", "onnxruntime", "opacus"}
print(features.cached, sorted(heavy & sys.modules.keys()))
"""


def test_a_warm_extraction_imports_no_network_library(card: BackboneCard, tmp_path: Path) -> None:
    pixels = pictures(4)
    extract(manifest_of(Counting(pixels)), card)
    command = run_child(WARM, card, folder=tmp_path, pixels=pixels)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip() == "4 []", ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_an_interrupted_extraction_keeps_its_work(card: BackboneCard, tmp_path: Path) -> None:
    open_engine(card, "onnx").close()
    pixels = pictures(2000)
    command = run_child("", card, folder=tmp_path, pixels=pixels)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) != 0
    cache = FeatureCache(card.digest(), card.width)
    kept = int((cache.find(manifest_of(Counting(pixels)).digests) >= 0).sum())
    assert 30 <= kept < 2000
    assert sum(entry.n_blocks for entry in usage()) == 1
