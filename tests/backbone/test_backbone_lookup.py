"""From a name to a card: warm without torch, cold without a network, wrong names with a hint."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from fedtl.backbone import BackboneCard, architectures, resolve, store
from fedtl.errors import BackboneError

LITE0 = "tf_efficientnet_lite0"
LAZY = """
import sys
import numpy as np
from fedtl.backbone import open_engine, resolve
card = resolve("tf_efficientnet_lite0", image_size=64)
x = np.zeros((1, 3, 64, 64), np.float32)
with open_engine(card, "onnx") as engine:
    assert engine(x).shape == (1, 2208)
print(sorted({"torch", "timm", "flwr"} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackboneCard]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(tmp_path_factory.mktemp("home")))
        yield resolve(LITE0, image_size=64)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_default_backbone_is_what_the_package_carries(lite0: BackboneCard) -> None:
    assert lite0.taps == ("blocks.2@2", "blocks.4@2", "blocks.6@1", "head")
    assert lite0.tap_widths == (160, 448, 320, 1280)
    assert (lite0.mean, lite0.crop_pct, lite0.native_size) == ((0.5, 0.5, 0.5), 0.875, 224)
    assert lite0.licence == "Apache-2.0"
    assert str(Path.home()) not in lite0.to_json()


def test_the_second_process_imports_neither_torch_nor_timm(lite0: BackboneCard) -> None:
    from fedtl.backbone import open_engine

    open_engine(lite0, "onnx").close()
    warm = run(LAZY)
    assert (warm.returncode, warm.stdout.strip()) == (0, "[]"), warm.stderr


def test_without_a_hub_the_error_comes_soon_and_says_what_to_do(tmp_path: Path) -> None:
    code = """
from fedtl.backbone import resolve
from fedtl.errors import BackboneError
try:
    resolve("resnet18")
except BackboneError as error:
    print(error.code, error)
"""
    began = time.monotonic()
    places = {"FEDTL_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    offline = run(code, HF_ENDPOINT="http://127.0.0.1:9", **places)
    assert time.monotonic() - began < 45, "an unreachable hub must not be asked again and again"
    for words in (
        "backbone.nowhere",
        "no package carries it",
        "127.0.0.1:9",
        "pass it as `weights`",
    ):
        assert words in offline.stdout, offline.stdout + offline.stderr


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "home"))
    state = architectures.create("resnet10t", pretrained=False, num_classes=0).state_dict()
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    first = resolve("resnet10t", path, image_size=32)
    assert resolve("resnet10t", path, image_size=32) == first
    save_file({name: value * 0 for name, value in state.items()}, path)
    os.utime(path, ns=(1, 1))
    assert resolve("resnet10t", path, image_size=32).sha256 != first.sha256


def test_a_plain_name_never_finds_weights_given_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lite0: BackboneCard
) -> None:
    official = load(store.get(lite0.sha256))
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "home"))
    save_file({name: value * 0 for name, value in official.items()}, tmp_path / "w.safetensors")
    by_hand = resolve(LITE0, tmp_path / "w.safetensors", image_size=64)
    assert resolve(LITE0, image_size=64).sha256 == lite0.sha256 != by_hand.sha256


def test_an_installed_backbone_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lite0: BackboneCard
) -> None:
    weights = store.get(lite0.sha256)
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path))
    sent = replace(lite0, source="hub somewhere")
    store.install(sent, weights)
    assert resolve(LITE0, taps="final", image_size=64).source == "hub somewhere"
    with pytest.raises(BackboneError, match="the card says"):
        store.install(sent, weights + b"x")


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"origin": [3], "card": 7}'])
def test_a_damaged_index_is_only_forgotten(lite0: BackboneCard, damage: bytes) -> None:
    for path in (store.root() / "index").glob("*.json"):
        path.write_bytes(damage)
    assert resolve(LITE0, image_size=64) == lite0


@pytest.mark.parametrize("name", ["tf_efficientnet_lite", "hf-hub:a/b", "local-dir:/x", "../x", ""])
def test_an_unknown_name_lists_near_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where '../x' is no folder
    with pytest.raises(BackboneError, match=r"is not an architecture of timm.*Known: "):
        resolve(name)


@pytest.mark.parametrize("taps", ["blocks.9@1", "blocks.2", "blocks.2@0", "blocks.2@x", "heads"])
def test_an_unknown_tap_lists_the_valid_ones(lite0: BackboneCard, taps: str) -> None:
    with pytest.raises(BackboneError, match=r"Known: blocks.0@1, .*head"):
        resolve(LITE0, taps=taps, image_size=64)


@pytest.mark.parametrize("size", [0, -1, 7, 5000])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(BackboneError, match=f"image_size is {size}"):
        resolve(LITE0, image_size=size)


def test_a_transformer_takes_another_size_if_its_patches_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    name = "vit_tiny_patch16_224"
    save_file(architectures.create(name, pretrained=False, num_classes=0).state_dict(), path)
    card = resolve(name, path, image_size=64)
    assert (card.taps, card.tap_widths) == (("blocks.11@1", "head"), (192, 192))
    with pytest.raises(BackboneError, match="image_size 8 does not suit"):
        resolve(name, path, image_size=8)


def test_an_untrained_body_is_the_seeds_own_and_no_plain_name_finds_it() -> None:
    """A run that was to be compared with it would else get it for the pretrained one."""
    one, other = (resolve(LITE0, f"random:{seed}", image_size=64) for seed in (1, 2))
    assert one.sha256 != other.sha256
    assert resolve(LITE0, "random:1", image_size=64) == one
    assert "random:1" in one.source
    assert resolve(LITE0, image_size=64).sha256 not in (one.sha256, other.sha256)


@pytest.mark.parametrize("weights", ["random:", "random:x", "random:-1", "random:1.5", "random:²"])
def test_an_untrained_body_needs_a_seed(weights: str) -> None:
    with pytest.raises(BackboneError, match="names no seed"):
        resolve(LITE0, weights)
