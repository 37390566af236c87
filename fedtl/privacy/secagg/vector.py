"""From named arrays to the one vector of whole numbers that a site masks, and from a sum back.

The vector is every array in name order, times the site's weight unless a plain sum is wanted, and
the weight at the end. So the server learns the sum of the weights, never a single one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtl.privacy.discrete import LEAST_DEVIATION, enlarged, whole_noise
from fedtl.privacy.secagg.codec import refusal
from fedtl.privacy.secagg.masks import Words
from fedtl.privacy.secagg.quantise import FixedPoint
from fedtl.privacy.secagg.session import Session

Named = Mapping[str, NDArray[np.floating]]

_TAIL = 16
"""Noise is never beyond so many deviations: its probability there is below 1e-57."""


@dataclass(frozen=True, slots=True)
class SharedNoise:
    """The noise that a sum over sites needs, and how it is shared out.

    Attributes
    ----------
    deviations : mapping of str to float or NDArray
        Standard deviation on every entry of the sum, by array.
    noise_multiplier : float
        The same divided by the L2 sensitivity, over all arrays together.
    honest_sites : int
        So many sites' shares make up the whole.
    words : callable
        ``words(n)`` returns fresh random 64-bit words.
    """

    deviations: Mapping[str, float | NDArray[np.float64]]
    noise_multiplier: float
    honest_sites: int
    words: Callable[[int], Words]


def encode(
    arrays: Named, weight: float, session: Session, noise: SharedNoise | None = None
) -> Words:
    """Return a site's vector ``[m + 1]``, with its share of noise.

    The noise is whole numbers of an exact discrete Gaussian, added after rounding, so that nothing
    of a floating-point sampler shows (Mironov 2012). Rounding moves neighbouring vectors apart by
    up to a step an entry; the noise is enlarged by what that costs.

    Parameters
    ----------
    arrays : mapping of str to NDArray
        Finite values.
    weight : float
        The site's weight in a mean.

    Raises
    ------
    PrivacyError
        With code ``secagg.range``: values beyond the session's bound. With ``privacy.step``: noise
        so small beside the bound that whole numbers cannot carry it.
    """
    fixed = FixedPoint(session.bound, session.invited)
    factor = 1.0 if session.additive else weight
    parts = [
        fixed.encode(np.asarray(arrays[name], np.float64).ravel() * factor)
        for name in sorted(arrays)
    ]
    if noise is not None:
        for part, drawn in zip(parts, _drawn(arrays, noise, fixed), strict=True):
            part += drawn
    return np.concatenate([*parts, fixed.encode(np.array([weight]))])


def decode(
    total: Words, shapes: Mapping[str, tuple[int, ...]], session: Session
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Return the arrays of a sum (or of a weighted mean) and the sum of the weights.

    Raises
    ------
    PrivacyError
        With code ``secagg.length``: the sum has another length.
    """
    sizes = {name: math.prod(shape) for name, shape in sorted(shapes.items())}
    if len(total) != sum(sizes.values()) + 1:
        raise refusal("length", f"The sum has {len(total)} entries, not {sum(sizes.values()) + 1}.")
    values = FixedPoint(session.bound, session.invited).decode(total)
    weight = float(values[-1])
    if not weight > 0:
        raise refusal("range", f"The weights of the sites add up to {weight}.")
    values = values[:-1] / (1.0 if session.additive else weight)
    parts = np.split(values, np.cumsum(list(sizes.values()))[:-1])
    return {n: part.reshape(shapes[n]) for n, part in zip(sizes, parts, strict=True)}, weight


def _drawn(arrays: Named, noise: SharedNoise, fixed: FixedPoint) -> list[Words]:
    """Return a site's share of the noise for every array, in name order."""
    wide = [
        np.broadcast_to(np.asarray(noise.deviations[name], np.float64), arrays[name].shape).ravel()
        for name in sorted(arrays)
    ]
    largest = max(float(d.max()) for d in wide)
    if largest * _TAIL > fixed.bound:
        raise refusal(
            "range",
            f"The noise of deviation {largest:.3g} does not fit in a session for values up to "
            f"{fixed.bound:g}.",
            "Lower the learning rate, or raise epsilon.",
        )
    share = enlarged(wide, fixed.step, noise.noise_multiplier) / math.sqrt(noise.honest_sites)
    return [
        whole_noise(d * share, fixed.step, noise.words, least=LEAST_DEVIATION).view(np.uint64)
        for d in wide
    ]
