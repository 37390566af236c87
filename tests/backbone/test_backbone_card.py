"""A card travels between machines: what it says must survive, and lies must be refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fedtl.backbone import BackboneCard
from fedtl.errors import BackboneError

CARD = BackboneCard(
    architecture="resnet10t",
    sha256="0f" * 32,
    source="package x",
    licence="MIT",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode="center",
    native_size=176,
    image_size=64,
    taps=("layer2@2", "head"),
    tap_widths=(512, 512),
    timm_version="1.0.31",
)


def test_a_card_survives_json() -> None:
    again = BackboneCard.from_json(CARD.to_json())
    assert again == CARD
    assert again.digest() == CARD.digest()
    assert again.width == 1024


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet18"},
        {"sha256": "1f" * 32},
        {"taps": ("layer2@3", "head")},
        {"taps": ("head", "layer2@2")},
        {"image_size": 65},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
        {"interpolation": "bilinear"},
        {"crop_pct": 0.95},
        {"crop_mode": "squash"},
    ],
)
def test_whatever_changes_the_features_changes_the_digest(change: dict[str, Any]) -> None:
    assert dataclasses.replace(CARD, **change).digest() != CARD.digest()


def test_what_does_not_touch_a_feature_leaves_the_cache_valid() -> None:
    moved = dataclasses.replace(CARD, source="hub y", licence="?", timm_version="1.0.99")
    assert moved.digest() == CARD.digest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha256", "../../etc/passwd"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("std", [0.5, 0.5, 0]),
        ("std", 0.5),
        ("crop_pct", 1.5),
        ("crop_pct", 0),
        ("crop_pct", 10**400),
        ("interpolation", "magic"),
        ("crop_mode", "border"),
        ("image_size", 10**6),
        ("image_size", True),
        ("image_size", "64"),
        ("taps", []),
        ("taps", ["head", 3]),
        ("tap_widths", [512]),
        ("tap_widths", [512, -512]),
    ],
)
def test_an_impossible_card_is_refused_by_field(name: str, value: Any) -> None:
    raw = {**json.loads(CARD.to_json()), name: value}
    with pytest.raises(BackboneError, match=name):
        BackboneCard.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"architecture": "x"}', b"\xff"])
def test_what_is_no_card_is_refused(text: str | bytes) -> None:
    with pytest.raises(BackboneError, match="card cannot be used"):
        BackboneCard.from_json(text)
