"""A frozen backbone left in train mode lets un-noised averages of private pictures out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedtl.backbone import BackboneCard, resolve
from fedtl.backbone.engine import eager, open_engine
from fedtl.backbone.model import Backbone
from fedtl.backbone.model import build as build_backbone


class TrainedMode(Backbone):
    """The fault: normalisation layers follow the batch, whoever asked for eval mode."""

    def tapped(self, x: Tensor) -> list[Tensor]:
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.Module.train(module)
        final, maps = self._run(x)
        del maps
        return [self.body.forward_head(final, pre_logits=True).flatten(1)]


def moved_by(monkeypatch: pytest.MonkeyPatch, *, broken: bool) -> int:
    """Return how many buffers of a frozen backbone private pictures move."""
    alive: list[nn.Module] = []

    def watched(card: BackboneCard) -> nn.Module:
        model = build_backbone(card)
        if broken:
            model.__class__ = TrainedMode
        alive.append(model)
        return model

    monkeypatch.setattr(eager, "build", watched)
    card = resolve("tf_efficientnet_lite0", taps="final", image_size=32)
    private = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).numpy()
    with open_engine(card, "reference") as engine:
        before = {k: v.clone() for k, v in alive[0].state_dict().items()}
        engine(private)
    after = alive[0].state_dict()
    return sum(not torch.equal(after[k], v) for k, v in before.items() if "running_" in k)


def test_a_backbone_in_train_mode_is_caught_and_the_real_one_stays_still(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What moved would be private, un-noised, and part of everything that is sent afterwards."""
    assert moved_by(monkeypatch, broken=False) == 0
    assert moved_by(monkeypatch, broken=True) > 50
