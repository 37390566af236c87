"""Per-example clipping of a linear softmax head in closed form.

The gradient of the cross-entropy of one example with respect to the weight matrix is the outer
product ``(p - y) xᵀ``, so its Frobenius norm is ``|p - y| |x|`` exactly, and the sum of the clipped
gradients is ``(diag(s) (P - Y))ᵀ X`` with ``s = min(1, C / norm)``. No per-example gradient is
ever formed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def clip_residuals(residuals: Tensor, feature_norms: Tensor, clip_norm: float) -> Tensor:
    """Scale each example's residual so that its gradient has norm at most ``clip_norm``.

    Parameters
    ----------
    residuals : Tensor
        ``[..., C]``, softmax probabilities minus one-hot labels.
    feature_norms : Tensor
        ``[...]``, L2 norms of the feature vectors (bias feature included).
    clip_norm : float
        Largest allowed gradient norm of one example.

    Returns
    -------
    Tensor
        ``[..., C]``, the scaled residuals (the input is overwritten).
    """
    import torch

    norms = torch.linalg.vector_norm(residuals, dim=-1).mul_(feature_norms)
    return residuals.mul_((clip_norm / norms.clamp_(min=clip_norm)).unsqueeze_(-1))
