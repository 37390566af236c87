"""The identity that makes clipping free for a linear head, against Opacus."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import opacus_linear_grad


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(2, 5), st.floats(0.01, 3))
def test_the_closed_form_of_a_linear_head_is_what_opacus_computes(n, width, classes, clip_norm):
    """Per-example norm of a linear softmax head: |p - y| |x| (no per-example gradient needed)."""
    draw = torch.Generator().manual_seed(2)
    x, weight = torch.randn(n, width, generator=draw), torch.randn(classes, width, generator=draw)
    y = torch.randint(0, classes, (n,), generator=draw)
    residual = torch.softmax(x @ weight.T, 1) - torch.nn.functional.one_hot(y, classes)
    scale = (clip_norm / (residual.norm(dim=1) * x.norm(dim=1))).clamp(max=1.0)
    closed = (scale[:, None] * residual).T @ x
    slow = opacus_linear_grad(weight, x, y, clip_norm)
    torch.testing.assert_close(closed, slow, rtol=1e-4, atol=1e-4 * clip_norm)
