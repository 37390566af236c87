"""Memory that is taken again: the system zeroes new pages, longer than small sums may take."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_kept = threading.local()


def room(purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of any content, until there is room for the same again in this thread.

    Parameters
    ----------
    purpose : str
        What it is for; always of the same dtype.

    Examples
    --------
    >>> first = room("example", (2, 3), np.float32)
    >>> first[:] = 1
    >>> room("example", (2,), np.float32)
    array([1., 1.], dtype=float32)
    """
    size = math.prod(shape)
    kept: NDArray[Any] | None = getattr(_kept, purpose, None)
    if kept is None or kept.size < size:
        kept = np.empty(size, dtype)
        setattr(_kept, purpose, kept)
    return kept[:size].reshape(shape)
