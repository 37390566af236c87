"""The law every engine keeps, for a real network, a random CNN and a random vision transformer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedtl.backbone import ENGINES, BackboneCard, Engine, architectures, open_engine, resolve, store
from fedtl.backbone.engine import export
from fedtl.backbone.model import build
from fedtl.errors import BackboneError

LITE0 = "tf_efficientnet_lite0"
CASES = {
    "lite0 64 px": (LITE0, 64, "auto"),
    "lite0 75 px": (LITE0, 75, "blocks.0@3,blocks.4@2,head"),
    "lite0 96 px": (LITE0, 96, "auto"),
    "resnet10t 70 px": ("resnet10t", 70, "auto"),
    "vit_tiny 224 px": ("vit_tiny_patch16_224", 224, "auto"),
}
KINDS = [*ENGINES, "auto"]


def random_folder(place: Path, architecture: str) -> Path:
    torch.manual_seed(3)
    body = architectures.create(architecture, pretrained=False, num_classes=0)
    folder = place / architecture
    folder.mkdir()
    save_file(body.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture}))
    return folder


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, BackboneCard]]:
    place = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(place / "home"))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine
        made = {}
        for case, (name, size, taps) in CASES.items():
            source = None if name == LITE0 else random_folder(place, name)
            made[case] = resolve(name, source, taps=taps, image_size=size)
        yield made
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def opened(cards: dict[str, BackboneCard]) -> Iterator[dict[tuple[str, str], Engine]]:
    engines: dict[tuple[str, str], Engine] = {}
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture(params=CASES)
def card(request: pytest.FixtureRequest, cards: dict[str, BackboneCard]) -> BackboneCard:
    return cards[request.param]


@pytest.fixture(params=KINDS)
def engine(
    request: pytest.FixtureRequest, card: BackboneCard, opened: dict[tuple[str, str], Engine]
) -> Engine:
    key = (request.param, card.digest())
    if key not in opened:
        opened[key] = open_engine(card, request.param, threads=2 if request.param == "onnx" else 1)
    return opened[key]


def pictures(card: BackboneCard, n: int) -> np.ndarray:
    size = (n, 3, card.image_size, card.image_size)
    return np.random.default_rng(n).standard_normal(size, dtype=np.float32)


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_every_engine_gives_the_numbers_of_plain_torch(card: BackboneCard, engine: Engine) -> None:
    x = pictures(card, 5)
    untouched = x.copy()
    with torch.inference_mode():
        wanted = build(card)(torch.tensor(x)).numpy()
    first = engine(x)
    assert_close(first, wanted)
    assert np.array_equal(x, untouched)
    assert np.array_equal(first, engine(x)), "the same pictures gave other numbers"


def test_a_pictures_features_do_not_depend_on_its_batch(card: BackboneCard, engine: Engine) -> None:
    x = pictures(card, 5)
    together = engine(x)
    assert_close(np.concatenate([engine(x[i : i + 1]) for i in range(5)]), together)
    assert_close(engine(x[::-1])[::-1], together)


def test_an_empty_batch_gives_no_features(card: BackboneCard, engine: Engine) -> None:
    assert engine(pictures(card, 0)).shape == (0, card.width)


@pytest.mark.parametrize("wrong", ["size", "channels", "dims", "dtype"])
def test_a_wrong_batch_is_refused_with_both_shapes(
    card: BackboneCard, engine: Engine, wrong: str
) -> None:
    x = pictures(card, 2)
    bad = {
        "size": x[..., :-1],
        "channels": x[:, :1],
        "dims": x[0],
        "dtype": x.astype(np.float64),
    }[wrong]
    with pytest.raises(BackboneError, match=rf"takes float32 \[n, 3, {card.image_size}"):
        engine(bad)


def test_a_closed_engine_says_so(cards: dict[str, BackboneCard]) -> None:
    card = cards["lite0 64 px"]
    with open_engine(card, "onnx") as engine:
        pass
    with pytest.raises(BackboneError, match="closed"):
        engine(pictures(card, 1))


def test_bf16_comes_from_torch_alone_and_is_near(cards: dict[str, BackboneCard]) -> None:
    card = cards["lite0 64 px"]
    x = pictures(card, 2)
    with open_engine(card, precision="bf16") as rough, open_engine(card, "reference") as exact:
        wanted, found = exact(x), rough(x)
        assert "bf16" in rough.name
        assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    for kind in ("onnx", "reference"):
        with pytest.raises(BackboneError, match="fp32 only"):
            open_engine(card, kind, precision="bf16")


@pytest.mark.parametrize(("argument", "value"), [("kind", "onyx"), ("precision", "fp64")])
def test_an_unknown_choice_lists_the_known(
    cards: dict[str, BackboneCard], argument: str, value: str
) -> None:
    with pytest.raises(BackboneError, match=f"{argument} is '{value}'.*Known: "):
        open_engine(cards["lite0 64 px"], **{argument: value})


def test_a_damaged_graph_is_exported_again(
    cards: dict[str, BackboneCard], caplog: pytest.LogCaptureFixture
) -> None:
    card = cards["resnet10t 70 px"]
    x = pictures(card, 2)
    wanted = open_engine(card, "onnx")(x)
    (graph,) = (store.folder(card.sha256) / "engine-cache").glob("*.onnx")
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_close(open_engine(card, "onnx")(x), wanted)
    assert "damaged" in caplog.text
    (graph,) = (store.folder(card.sha256) / "engine-cache").glob("*.onnx")
    assert hashlib.sha256(graph.read_bytes()).hexdigest() in graph.name


def test_where_no_exporter_works_torch_takes_over_and_says_so(
    cards: dict[str, BackboneCard],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    card = cards["resnet10t 70 px"]
    weights = store.get(card.sha256)
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path))
    store.install(card, weights)
    monkeypatch.setattr(export, "_EXPORTERS", {})
    with open_engine(card) as engine:
        assert engine.name.startswith("torch")
    assert "could not be exported" in caplog.text
    with pytest.raises(BackboneError, match="Use the engine 'torch'"):
        open_engine(card, "onnx")


def test_tampered_weights_are_refused_with_both_digests(
    cards: dict[str, BackboneCard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = cards["resnet10t 70 px"]
    weights = store.get(card.sha256)
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path))
    store.install(card, weights)
    path = store.folder(card.sha256) / "weights.safetensors"
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BackboneError, match=f"{card.sha256}.*{found}") as caught:
        open_engine(card)
    assert caught.value.code == "backbone.tampered"
