"""The audit of a recipe: it draws its members from all sites, without copying the features."""

from __future__ import annotations

import numpy as np
import torch

from fedtl.launch.audit import _some
from fedtl.train.fit import Examples


def test_members_are_drawn_from_all_sites_once_each_and_keep_their_labels() -> None:
    x = torch.arange(60.0).reshape(30, 2)
    y = torch.arange(30)
    parts = [Examples.of(x[a:b], y[a:b]) for a, b in ((0, 10), (10, 10), (10, 13), (13, 30))]
    some = _some(parts, 20, seed=1)
    assert torch.equal(some.x[:, 0], 2.0 * some.y)
    drawn = some.y.numpy()
    assert len(np.unique(drawn)) == 20
    assert all(((drawn >= a) & (drawn < b)).any() for a, b in ((0, 10), (10, 13), (13, 30)))
    assert not np.array_equal(drawn, _some(parts, 20, seed=2).y.numpy())
    assert np.array_equal(np.sort(_some(parts, 99, seed=1).y.numpy()), np.arange(30))
