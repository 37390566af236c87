"""Noise that sites share out, as an auditor of the sum gets to see it: through the sites' code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedtl.privacy.plan import Release
from fedtl.privacy.secagg import Session, SharedNoise, decode, encode
from fedtl.train.streams import Streams

_BOUND = 2.0**20


def in_the_sum(
    arrays: Mapping[str, NDArray[np.float64]],
    deviations: Mapping[str, float | NDArray[np.float64]],
    release: Release,
    streams: Streams,
) -> dict[str, NDArray[np.float64]]:
    """Return one site's un-noised arrays as they come out of a sum whose noise is all its own.

    No more noise than that is promised: the other sites' updates may be known to the auditor.

    Parameters
    ----------
    deviations : mapping of str to float or NDArray
        Of the noise of the whole sum.
    """
    session = Session("audit", 1, 1, 2, 1.0, _BOUND, additive=True)
    noise = SharedNoise(deviations, release.noise_multiplier, 1, streams.words)
    shapes = {name: values.shape for name, values in arrays.items()}
    return decode(encode(arrays, 1.0, session, noise), shapes, session)[0]
