"""Where a site's randomness comes from: a seed in a simulation, the operating system at a site.

Noise is made of the keystream of AES in counter mode, which no one without the key can tell from
random bits, at a twentieth of the price of ``os.urandom``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray
from torch import Tensor

from fedtl.rng import key_of, stream


class Streams(Protocol):
    """The random streams of one site in one round."""

    seeded: bool
    """Whether the noise can be repeated by whoever knows the seed, and so protects nobody."""

    @property
    def batches(self) -> np.random.Generator:
        """Generator for the choice of batches."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return fresh independent standard normal numbers, float32."""

    def words(self, n: int) -> NDArray[np.uint64]:
        """Return fresh random 64-bit words, for noise."""


class SeededStreams:
    """Reproducible streams by seed, round and site: for simulations, without any guarantee.

    Parameters
    ----------
    purpose : str
        What the noise is for: that of a round's training must not come back in what is told of its
        result.
    """

    seeded = True

    def __init__(self, seed: int, round_: int, site: str, purpose: str = "noise") -> None:
        self._named, self._purpose = (seed, round_, site), purpose

    @cached_property
    def batches(self) -> np.random.Generator:
        """Generator for the choice of batches, opened when first asked for."""
        seed, round_, site = self._named
        return stream(seed, "batches", round_, site)

    @cached_property
    def noise(self) -> _Keystream:
        """The noise stream, opened when first asked for."""
        seed, round_, site = self._named
        return _Keystream(key_of(seed, self._purpose, round_, site))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal numbers of the seeded noise stream.

        Computed in float32 from 32-bit uniforms; they end at 6.8.
        """
        return _seeded_normal([self], shape)[0]

    def words(self, n: int) -> NDArray[np.uint64]:
        """Return words of the seeded noise stream."""
        return self.noise.words(n, np.uint64)


class SystemStreams:
    """Streams of a real site: keys of the operating system, beyond the reach of any message."""

    seeded = False

    def __init__(self) -> None:
        self.batches = np.random.Generator(np.random.PCG64DXSM(int.from_bytes(os.urandom(32))))
        self._noise = _Keystream(os.urandom(32))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal numbers, computed in float64 from 53-bit uniforms, as float32."""
        half = math.prod(shape) // 2 + 1
        words = self._noise.words(2 * half, np.uint64) >> np.uint64(11)
        uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
        return _normal(uniform[None, :half], uniform[None, half:], shape)[0]

    def words(self, n: int) -> NDArray[np.uint64]:
        """Return words of the system's keystream."""
        return self._noise.words(n, np.uint64)


def add_normal(
    out: Tensor, streams: Sequence[Streams], scale: float, *, at_once: int = 1 << 17
) -> None:
    """Add ``scale`` times standard normal numbers to ``[S, ...]`` in place, row by row's stream.

    As many numbers ``at_once`` as the processor's cache holds. A row's bits do not depend on the
    other rows.
    """
    shape = tuple(out.shape[1:])
    rows = max(at_once // max(math.prod(shape), 1), 1)
    for begin in range(0, len(streams), rows):
        part = streams[begin : begin + rows]
        seeded = [stream for stream in part if isinstance(stream, SeededStreams)]
        if len(seeded) == len(part):
            noise = _seeded_normal(seeded, shape)
        else:
            noise = torch.stack([stream.normal(shape) for stream in part])
        out[begin : begin + rows].add_(noise.to(out.device), alpha=scale)


def _seeded_normal(streams: Sequence[SeededStreams], shape: tuple[int, ...]) -> Tensor:
    half = math.prod(shape) // 2 + 1
    uniform = np.empty((len(streams), 2 * half), np.float32)
    for row, own in zip(uniform, streams, strict=True):
        row[:] = own.noise.words(2 * half, np.uint32)
    uniform[:, :half] += np.float32(0.5)
    uniform *= np.float32(2.0**-32)
    return _normal(uniform[:, :half], uniform[:, half:], shape)


class _Keystream:
    """The keystream of AES in counter mode under a key that is used for nothing else."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def words(self, n: int, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
        """Return the next ``n`` words."""
        return np.frombuffer(self._cipher.update(bytes(n * np.dtype(kind).itemsize)), kind)


def _normal(first: NDArray[Any], second: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    """Turn uniform numbers in (0, 1] into normal ones, ``[S, *shape]``; overwrite both.

    Box and Muller (1958), Annals of Mathematical Statistics 29(2).
    """
    rows, half = first.shape
    radius = np.sqrt(np.multiply(np.log(first, out=first), -2, out=first), out=first)
    angle = np.multiply(second, 2 * math.pi, out=second)
    both = np.empty((rows, 2, half), first.dtype)
    np.multiply(np.cos(angle, out=both[:, 0]), radius, out=both[:, 0])
    np.multiply(np.sin(angle, out=both[:, 1]), radius, out=both[:, 1])
    numbers = torch.from_numpy(both.reshape(rows, 2 * half).astype(np.float32, copy=False))
    return numbers[:, : math.prod(shape)].view(rows, *shape)
