"""Slow, obvious ways to the numbers that fast code must reproduce."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional


def opacus_linear_grad(weight: Tensor, x: Tensor, y: Tensor, clip_norm: float) -> Tensor:
    """Return the sum of clipped gradients of a bias-free softmax head, by Opacus' hooks: [C, d]."""
    from opacus.grad_sample import GradSampleModule

    layer = torch.nn.Linear(x.shape[1], len(weight), bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    model = GradSampleModule(layer, loss_reduction="sum")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        functional.cross_entropy(model(x), y, reduction="sum").backward()
    per_example = layer.weight.grad_sample
    norms = per_example.flatten(1).norm(dim=1)
    scale = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
    return torch.einsum("n,ncd->cd", scale, per_example)


def autograd_mlp_grad(
    state: dict[str, Tensor], x: Tensor, y: Tensor, clip_norm: float
) -> dict[str, Tensor]:
    """Return the sum of clipped gradients of an MLP head, one example at a time."""
    total = {name: torch.zeros_like(value) for name, value in state.items()}
    for row, label in zip(x, y, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
        inner = functional.gelu(leaves["hidden.weight"] @ row + leaves["hidden.bias"])
        scores = leaves["out.weight"] @ inner + leaves["out.bias"]
        (torch.logsumexp(scores, 0) - scores[label]).backward()
        norm = torch.sqrt(sum(leaf.grad.square().sum() for leaf in leaves.values()))
        scale = min(1.0, clip_norm / float(norm)) if norm > 0 else 1.0
        for name, leaf in leaves.items():
            total[name] += scale * leaf.grad
    return total
