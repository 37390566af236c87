"""Sharing a secret so that any ``threshold`` shares give it back and fewer say nothing.

Shamir, "How to share a secret", CACM 22(11), 1979, over the integers modulo the smallest prime
above 2^256.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from fedtl.privacy.secagg.codec import refusal

PRIME = 2**256 + 297
SECRET_BYTES, SHARE_BYTES = 32, 33


def split(secret: bytes, threshold: int, shares: int) -> list[bytes]:
    """Return ``shares`` shares of 33 bytes of a secret of 32; the first belongs to point 1.

    Raises
    ------
    PrivacyError
        With code ``secagg.threshold``: ``threshold`` is not from 1 to ``shares``.
    """
    if len(secret) != SECRET_BYTES:
        raise refusal("malformed", f"A secret of {len(secret)} bytes has not {SECRET_BYTES}.")
    if not 1 <= threshold <= shares:
        raise refusal(
            "threshold",
            f"threshold = {threshold} of {shares} shares cannot be met.",
            "Choose a threshold from 1 to the number of sites.",
        )
    # 48 random bytes leave a bias of 2^-128 in each coefficient
    polynomial = [int.from_bytes(os.urandom(48)) % PRIME for _ in range(threshold - 1)]
    out = []
    for point in range(1, shares + 1):
        value = 0
        for coefficient in polynomial:
            value = (value + coefficient) * point % PRIME
        out.append(((value + int.from_bytes(secret)) % PRIME).to_bytes(SHARE_BYTES))
    return out


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of exactly as many shares as the threshold, by point.

    Raises
    ------
    PrivacyError
        With code ``secagg.share``: these shares belong to no secret of 32 bytes.
    """
    values = [int.from_bytes(share) for share in shares.values()]
    weights = _weights(tuple(shares))
    secret = sum(w * v for w, v in zip(weights, values, strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES) or any(value >= PRIME for value in values):
        raise refusal("share", "The shares of a secret do not fit together.")
    return secret.to_bytes(SECRET_BYTES)


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...]) -> list[int]:
    """Return Lagrange's weights at 0."""
    out = []
    for i in points:
        above = below = 1
        for j in points:
            if j != i:
                above = above * j % PRIME
                below = below * (j - i) % PRIME
        out.append(above * pow(below, -1, PRIME) % PRIME)
    return out
