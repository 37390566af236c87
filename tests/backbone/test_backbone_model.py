"""A frozen backbone whose statistics move carries private averages out of the house."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from fedtl.backbone import architectures
from fedtl.backbone.model import Backbone, pool
from fedtl.backbone.taps import automatic, stages
from fedtl.errors import BackboneError


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    body = architectures.create("resnet10t", pretrained=False, num_classes=0)
    return Backbone(body, automatic(stages(body)))


def test_not_one_bit_moves_whoever_switches_what(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first = backbone(x)
    outer = nn.Sequential(backbone, nn.Linear(first.shape[1], 2)).train()
    backbone.train()
    assert not backbone.training
    for module in backbone.body.modules():
        module.training = True
    outer(x).sum().backward()
    assert torch.equal(backbone(x), first)
    assert not any(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("running_mean" in name for name in before), "the test must see a BatchNorm"


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), grid=st.integers(1, 5), n=st.integers(1, 3)
)
def test_pooling_is_adaptive_average_pooling(height: int, width: int, grid: int, n: int) -> None:
    maps = torch.randn(n, 2, height, width, generator=torch.Generator().manual_seed(grid))
    wanted = adaptive_avg_pool2d(maps, grid).flatten(1)
    torch.testing.assert_close(pool(maps, grid), wanted)


def test_features_stand_in_the_order_of_the_taps() -> None:
    body = architectures.create("resnet10t", pretrained=False, num_classes=0)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    there = Backbone(body, ("head", "layer1@1"))(x)
    back = Backbone(body, ("layer1@1", "head"))(x)
    assert torch.equal(there, torch.cat([back[:, 64:], back[:, :64]], dim=1))


def test_a_tap_named_twice_is_refused() -> None:
    body = architectures.create("resnet10t", pretrained=False, num_classes=0)
    with pytest.raises(BackboneError, match="named twice"):
        Backbone(body, ("head", "layer1@1", "head"))
