"""The nouns that more than one layer speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays of a head, of statistics, or of a masked vector."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a site sends after training: covered by its plan, or by its policy if there is none.

    Attributes
    ----------
    arrays : mapping of str to NDArray
        The trained head, or the statistics asked for.
    weight : float
        Weight in an average: 1.0 under a plan (a site's size is private), else its size.
    releases : int
        Private releases of this site in this run so far, this one included.
    """

    arrays: Arrays
    weight: float
    releases: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A head's result on a site's held-out examples.

    Attributes
    ----------
    n : int
        Held-out examples.
    loss : float
        Mean cross-entropy, nats.
    confusion : NDArray
        ``[C, C]`` counts, rows are true classes.
    """

    n: int
    loss: float
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of held-out examples classified correctly; nan without any."""
        return float(np.trace(self.confusion)) / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True)
class Description:
    """A site's public description: nothing here depends on any of its examples."""

    name: str
    classes: tuple[str, ...]
    backbone: str
    width: int
    version: str
