"""Fixed point: real vectors as whole numbers mod 2^64 whose sum cannot overflow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.privacy.secagg.codec import refusal
from fedtl.privacy.secagg.masks import Words

_ROOM = 62
"""Bits of the largest sum: one below the sign bit, so that rounding has room as well."""


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Multiples of a step, chosen so that ``sites`` vectors add up without overflow.

    The step is the smallest power of two with ``sites * bound / step <= 2^62``. Values are rounded
    to the nearest multiple, so a site errs by at most half a step and the sum of n sites by n
    halves: :meth:`error`. At ten sites and a bound of 2^16 the step is 2^-42.

    Attributes
    ----------
    bound : float
        Largest absolute value of one site's entry.
    sites : int
        Largest number of vectors in a sum.
    """

    bound: float
    sites: int

    @property
    def step(self) -> float:
        """The unit of the whole numbers, a power of two."""
        mantissa, exponent = math.frexp(self.bound * self.sites)
        return math.ldexp(1.0, exponent - _ROOM - (mantissa == 0.5))

    def error(self, sites: int | None = None) -> float:
        """Return the largest error of an entry of the sum of ``sites`` vectors (default: all)."""
        return (self.sites if sites is None else sites) * self.step / 2

    def encode(self, values: NDArray[np.float64]) -> Words:
        """Round values to whole steps, mod 2^64; nothing is clipped.

        Raises
        ------
        PrivacyError
            With code ``secagg.range``: entries beyond ``bound`` or not finite; it says how many.
        """
        outside = int(np.count_nonzero(~(np.abs(values) <= self.bound)))
        if outside:
            raise refusal(
                "range",
                f"{outside} of {values.size} values are not finite or beyond {self.bound:g}.",
                "Lower the learning rate, or check the features: they should be of unit length.",
            )
        return np.rint(values / self.step).astype(np.int64).view(np.uint64)

    def decode(self, total: Words) -> NDArray[np.float64]:
        """Return the real values of a sum of encoded vectors."""
        return total.view(np.int64).astype(np.float64) * self.step
