"""Random Fourier features: a linear head on them is a kernel machine on the backbone's features.

Rahimi & Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007, algorithm 1:

    φ(x) = sqrt(2 / D) cos(Ω x + β),   Ω_ij ~ N(0, 1 / l²),   β_j ~ U[0, 2π)

so that φ(x) · φ(y) is near exp(-|x - y|² / (2 l²)). FED3R-RF (arXiv:2406.01116, section 4.3) solves
its ridge regression on them. Ω and β never travel: three numbers in the head, two of a seed and the
length scale, and the width of its weights say everything. The bias feature stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtl.errors import FedtlError, RecipeError
from fedtl.rng import key_of, stream

RANDOM = "random.map"
"""Name in a head of ``[3]``: a seed in two whole numbers below 2^24, and the length scale."""
MOST = 8192
"""Most random features: a site's Gram matrix of them takes 512 MiB."""

MOST_NUMBERS = 1 << 29
"""Most numbers in the random features of a site's examples: 2 GiB."""

_HALF = 1 << 24
"""Whole numbers below it are exact in float32."""
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class RandomMap:
    """What a strategy wants of random features.

    Attributes
    ----------
    dimensions : int
        D, from 1 to :data:`MOST`.
    length_scale : float
        l: how far features of length one may be apart and still be alike.

    Examples
    --------
    >>> RandomMap(100, length_scale=0.5).entry(seed=1).shape
    (3,)
    """

    dimensions: int
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= MOST:
            raise RecipeError(
                f"random_features = {self.dimensions} is not from 1 to {MOST}.",
                next_step="1,000 to 4,000 are usual; 0 in [strategy.options] leaves them out.",
            )
        if not (math.isfinite(self.length_scale) and self.length_scale > 0):
            raise RecipeError(
                f"length_scale = {self.length_scale} must be a finite number above 0.",
                next_step="1 suits features of length one.",
            )

    def entry(self, seed: int) -> NDArray[np.float32]:
        """Return what stands for the map in a head; the run's seed draws it."""
        drawn = int.from_bytes(key_of(seed, RANDOM)[:6], "little")
        return np.array([drawn % _HALF, drawn // _HALF, self.length_scale], np.float32)


def is_random(head: Mapping[str, object]) -> bool:
    """Say whether a head looks at random features."""
    return RANDOM in head


def fits(entry: NDArray[np.float32], weight: NDArray[np.float32]) -> bool:
    """Say whether a received map is one, and of a size that a site can afford."""
    if entry.shape != (3,) or weight.ndim != 2 or not 2 <= weight.shape[1] <= MOST + 1:
        return False
    whole = all(0 <= part < _HALF and part == np.floor(part) for part in entry[:2])
    return bool(whole and 1e-6 < entry[2] < 1e6)


def random_features(x: Tensor, entry: NDArray[np.float32], dimensions: int) -> Tensor:
    """Return ``[n, D + 1]`` random features of ``[n, d + 1]`` features, the last one the bias.

    Parameters
    ----------
    entry : NDArray
        As made by :meth:`RandomMap.entry`.
    dimensions : int
        D.

    Raises
    ------
    FedtlError
        With code ``head.large``: more than :data:`MOST_NUMBERS` would come out.
    """
    if len(x) * (dimensions + 1) > MOST_NUMBERS:
        raise FedtlError(
            f"{dimensions} random features of {len(x)} examples take more than 2 GiB.",
            next_step="Lower random_features in [strategy.options].",
            code="head.large",
        )
    low, high, length_scale = (float(value) for value in entry)
    rng = stream(int(low) + _HALF * int(high), RANDOM)
    omega = rng.standard_normal((x.shape[1] - 1, dimensions), dtype=np.float32)
    phase = rng.uniform(0, 2 * math.pi, dimensions).astype(np.float32)
    turn = torch.from_numpy(omega).div_(length_scale).to(x.device)
    shift = torch.from_numpy(phase).to(x.device)
    out = torch.empty((len(x), dimensions + 1), dtype=x.dtype, device=x.device)
    out[:, -1] = x[:, -1]
    for begin in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        angles = torch.addmm(shift, x[rows, :-1], turn)
        # an angle sent to overflow has no cosine, and clipping would let the NaN through
        out[rows, :-1] = angles.cos_().mul_(math.sqrt(2 / dimensions)).nan_to_num_(0.0)
    return out
