"""Weight files are hostile until checked, and errors about them name the tensor."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from fedtl.backbone import architectures, resolve, store
from fedtl.backbone.tensors import fit_by_name, fit_by_position, read_tensors
from fedtl.backbone.weights import WEIGHT_PACKAGES, WeightPackage, package_file
from fedtl.errors import BackboneError

SMALL = "resnet10t"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "home"))


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(architectures.create(SMALL, pretrained=False).state_dict())


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["bad.pth", "bad.pt", "bad.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    path, mark = tmp_path / name, tmp_path / "mark"
    if zipped:
        torch.save({"a": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Bomb(mark)}, protocol=2))
    with pytest.raises(BackboneError, match="pickle"):
        resolve(SMALL, path)
    assert not mark.exists()


def test_a_compressed_checkpoint_is_refused_before_it_unfolds(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(BackboneError, match="compressed"):
        read_tensors(bomb)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 7, 1000, -100])
def test_a_truncated_file_is_refused(
    tmp_path: Path, state: dict[str, Tensor], name: str, keep: int
) -> None:
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BackboneError, match=name):
        read_tensors(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.ones(1)}, torch.ones(3)])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="not a dictionary of named tensors"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_file_kinds_and_wrappings_give_the_same_backbone(
    tmp_path: Path, state: dict[str, Tensor], wrapper: str | None
) -> None:
    save_file(state, tmp_path / "w.safetensors")
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({wrapper: parallel, "epoch": 3} if wrapper else parallel, tmp_path / "w.pth")
    first = resolve(SMALL, tmp_path / "w.safetensors", image_size=32)
    second = resolve(SMALL, tmp_path / "w.pth", image_size=32)
    assert first.sha256 == second.sha256
    assert "fc.weight" not in load(store.get(first.sha256))


def test_half_precision_weights_are_widened(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "w.safetensors")
    stored = load(store.get(resolve(SMALL, tmp_path / "w.safetensors", image_size=32).sha256))
    assert stored["conv1.0.weight"].dtype == torch.float32
    assert torch.equal(stored["conv1.0.weight"], state["conv1.0.weight"].half().float())


def test_a_misfit_names_each_tensor_and_what_is_wrong(state: dict[str, Tensor]) -> None:
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.weight"] = torch.ones(7)
    state["layer2.0.bn1.bias"][0] = float("nan")
    with pytest.raises(BackboneError) as caught:
        fit_by_name(state, SMALL, place="w.safetensors")
    for words in (
        "missing: layer1.0.conv1.weight",
        "unexpected: layer9.weight",
        r"misshapen: bn1.weight (7,) instead of (64,)",
        "not finite: layer2.0.bn1.bias",
    ):
        assert words in str(caught.value)


def test_positions_count_only_if_every_shape_fits(state: dict[str, Tensor]) -> None:
    renamed = {f"t{i}": value for i, value in enumerate(state.values())}
    fitted = fit_by_position(renamed, SMALL, place="w.pth")
    assert all(torch.equal(fitted[name], state[name]) for name in fitted)
    names = list(renamed)
    swapped = {name: renamed[name] for name in [names[1], names[0], *names[2:]]}
    with pytest.raises(BackboneError, match="misshapen"):
        fit_by_position(swapped, SMALL, place="w.pth")
    renamed.popitem()
    with pytest.raises(BackboneError, match="expected"):
        fit_by_position(renamed, SMALL, place="w.pth")


def test_a_folder_brings_its_own_data_configuration(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    settings = {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.75, "license": "mit"}
    config = {"architecture": SMALL, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))
    card = resolve(str(folder), image_size=32)
    assert (card.architecture, card.mean, card.crop_pct) == (SMALL, (0.1, 0.2, 0.3), 0.75)
    assert (card.licence, card.source) == ("mit", "file model.safetensors")
    with pytest.raises(BackboneError, match="holds weights of 'resnet10t', not of 'resnet18'"):
        resolve("resnet18", folder)


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "[]",
        '{"architecture": 3}',
        '{"architecture": "resnet10t", "pretrained_cfg": 3}',
        '{"architecture": "resnet10t", "pretrained_cfg": {"mean": "a"}}',
        '{"architecture": "resnet10t", "pretrained_cfg": {"mean": [1, 2]}}',
        '{"architecture": "resnet10t", "pretrained_cfg": {"crop_pct": -1}}',
        '{"architecture": "resnet10t", "pretrained_cfg": {"input_size": [3, 1e9]}}',
        '{"architecture": "resnet10t", "pretrained_cfg": {"interpolation": "x"}}',
        " " * 1_000_001,
    ],
)
def test_a_hostile_config_is_refused(tmp_path: Path, state: dict[str, Tensor], config: str) -> None:
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BackboneError):
        resolve(SMALL, tmp_path, image_size=32)


def test_a_swapped_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carrier_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "w.pth").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    known = WeightPackage("carrier_of_weights", "w.pth", "0" * 64, "MIT")
    monkeypatch.setitem(WEIGHT_PACKAGES, SMALL, known)
    assert package_file(known) == package / "w.pth"
    with pytest.raises(BackboneError, match="should have SHA-256 000") as caught:
        resolve(SMALL)
    assert caught.value.code == "backbone.tampered"


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth", "nofolder"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackboneError, match=name):
        resolve(SMALL, tmp_path / name)
