"""Where a site's randomness comes from: reproducible in a simulation, the operating system's at a site."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fedtl.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MT19937_WORDS = 624
_TORCH_STATE_BYTES = 5056


class Streams(Protocol):
    """The random streams of one site in one round."""

    @property
    def batches(self) -> np.random.Generator:
        """Generator for the choice of batches."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return fresh independent standard normal numbers, float32."""


@dataclass(frozen=True, slots=True)
class SeededStreams:
    """Reproducible streams, keyed by seed, round and site. For simulations: no privacy guarantee."""

    batches: np.random.Generator
    noise: torch.Generator

    @classmethod
    def of(cls, seed: int, round_: int, site: str) -> SeededStreams:
        """Open the streams of one site and round."""
        noise = _torch_generator(stream(seed, "noise", round_, site))
        return cls(stream(seed, "batches", round_, site), noise)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal numbers of the seeded noise stream."""
        import torch

        return torch.empty(shape).normal_(generator=self.noise)


class SystemStreams:
    """Streams of a real site: the operating system's entropy, beyond the reach of any message."""

    __slots__ = ("batches",)

    def __init__(self) -> None:
        self.batches = np.random.Generator(np.random.PCG64DXSM(int.from_bytes(os.urandom(32))))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal numbers made from ``os.urandom`` by Box and Muller (1958).

        Computed in float64 from 53-bit uniforms, then rounded to float32.
        """
        import torch

        half = math.prod(shape) // 2 + 1
        words = np.frombuffer(os.urandom(16 * half), np.uint64) >> np.uint64(11)
        uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
        radius = np.sqrt(-2 * np.log(uniform[:half]))
        angle = 2 * math.pi * uniform[half:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return torch.from_numpy(both[: math.prod(shape)].astype(np.float32)).view(shape)


def _torch_generator(bits: np.random.Generator) -> torch.Generator:
    """Return a torch generator whose whole state comes from ``bits``.

    ``manual_seed`` keeps 32 bits of its argument only, so that two of 65,000 streams would probably
    be one and the same; the Mersenne Twister's state takes 624 words.
    """
    import torch

    state = np.zeros(_TORCH_STATE_BYTES, np.uint8)
    state[8:16].view(np.int32)[:] = 1  # numbers left in the block, seeded
    words = state[24 : 24 + 8 * _MT19937_WORDS].view(np.uint64)
    words[:] = bits.integers(0, 1 << 32, size=_MT19937_WORDS, dtype=np.uint32)
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(state))
    return generator
