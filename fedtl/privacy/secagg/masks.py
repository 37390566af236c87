"""Masks: vectors of uint64 that nobody without the key can tell from random ones."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_AT_ONCE = 1 << 14
"""Words of a mask that are made and added before the next: what a processor's cache holds."""


def add_mask(vector: Words, key: bytes, *, sign: int = 1) -> None:
    """Add (or with ``sign=-1`` subtract) the mask of a key to a vector in place, mod 2^64.

    The mask is the keystream of AES-256 in counter mode; a key is used for one mask only.
    """
    cipher = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    for begin in range(0, len(vector), _AT_ONCE):
        part = vector[begin : begin + _AT_ONCE]
        mask = np.frombuffer(cipher.update(_ZEROS[: 8 * len(part)]), "<u8")
        if sign > 0:
            np.add(part, mask, out=part)
        else:
            np.subtract(part, mask, out=part)


_ZEROS = memoryview(bytes(8 * _AT_ONCE))
