"""A finished head on disk: read as it was written, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedtl.backbone import resolve
from fedtl.data import open_data
from fedtl.errors import CacheError
from fedtl.modules import Module, load_module, save_module
from fedtl.train.heads import initial_head


@pytest.fixture(scope="module")
def module() -> Module:
    card = resolve("tf_efficientnet_lite0", image_size=32)
    head = initial_head("mlp", card.width + 1, 3, hidden=4, seed=1)
    return Module(head, card, ("cat", "dog", "ünïcode"), {"run": "x", "plan": "(8, 1e-5)-DP"})


def test_a_module_reads_back_as_it_was(module: Module, tmp_path: Path) -> None:
    save_module(tmp_path / "m", module)
    got = load_module(tmp_path / "m")
    assert (got.card, got.classes, got.provenance) == (
        module.card,
        module.classes,
        module.provenance,
    )
    assert all(np.array_equal(got.head[k], module.head[k]) for k in module.head)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["head.safetensors", "module.json"]


def test_predictions_are_probabilities_over_the_classes(module: Module) -> None:
    digits = open_data("digits", limit=20)
    pictures = [digits.source.read(row) for row in range(5)]
    answers = module.predict(pictures)
    for answer in answers:
        assert set(answer.probabilities) == set(module.classes)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.probability == max(answer.probabilities.values())
        assert answer.probabilities[answer.label] == answer.probability
    one_by_one = [module.predict([p])[0].label for p in pictures]
    assert one_by_one == [a.label for a in answers]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no head": lambda folder: (folder / "head.safetensors").unlink(),
    "cut head": lambda folder: (folder / "head.safetensors").write_bytes(b"\x10\x00"),
    "cut json": lambda folder: (folder / "module.json").write_text("{"),
    "empty json": lambda folder: (folder / "module.json").write_text("{}"),
    "list": lambda folder: (folder / "module.json").write_text("[]"),
    "number": lambda folder: edit(folder, classes=3),
    "card": lambda folder: edit(folder, backbone={"name": "x"}),
    "classes": lambda folder: edit(folder, classes=["cat", "dog"]),
    "provenance": lambda folder: edit(folder, provenance=["x"]),
    "binary": lambda folder: (folder / "module.json").write_bytes(b"\xff\xfe"),
}


def edit(folder: Path, **changes: object) -> None:
    path = folder / "module.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_module_is_refused(module: Module, what: str, tmp_path: Path) -> None:
    save_module(tmp_path, module)
    DAMAGES[what](tmp_path)
    with pytest.raises(CacheError, match="is damaged") as error:
        load_module(tmp_path)
    assert error.value.next_step


def test_a_folder_without_a_module_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no finished head") as error:
        load_module(tmp_path)
    assert "--resume" in error.value.next_step
