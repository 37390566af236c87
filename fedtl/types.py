"""The nouns that more than one layer speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    steps : int
        Steps that were taken, where the task left their number to the site; else 0.
    """

    arrays: Arrays
    weight: float
    releases: int
    steps: int = 0


ALONE, GLOBAL, PERSONAL = HEADS = ("alone", "global", "personal")
"""Heads that a site has: trained by itself, received, and its own version of that."""


@dataclass(frozen=True, slots=True)
class Personal:
    """How a site's heads do on its held-out examples, in clear.

    Attributes
    ----------
    right_alone, right_global, right_used : int
        Examples that the head gets right: trained by the site alone, received, and the one that the
        site uses. For the last, half of the examples choose for the other half.
    gained_global, lost_global, gained_personal, lost_personal : int
        Units (examples, or groups) that are better off with the head than with the one that was
        trained alone, and worse off.
    units : int
        Held-out units.
    choice : {"alone", "global", "personal"}
        Which head the site uses, by all of its held-out examples.
    """

    right_alone: int
    right_global: int
    right_used: int
    gained_global: int
    lost_global: int
    gained_personal: int
    lost_personal: int
    units: int
    choice: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A head's result on a site's held-out examples, as sums: ratios are made of them afterwards.

    Under a plan the sums carry noise, and may be below zero.

    Attributes
    ----------
    wrong, right : float
        Held-out examples by whether the head names their class; under unit ``group`` an example of
        a group of m counts 1 / m.
    losses : float
        Sum of the cross-entropies, nats.
    confusion : NDArray or None
        ``[C, C]``, rows are true classes; None where it was not asked for.
    releases : int
        Private releases of metrics of this site in this run so far; 0 in clear.
    personal : Personal or None
        Where the result is of the site's personal head, in clear: how it compares.
    """

    wrong: float
    right: float
    losses: float
    confusion: NDArray[np.float64] | None = None
    releases: int = 0
    personal: Personal | None = None

    @property
    def n(self) -> float:
        """Held-out examples (or groups), noised like their parts."""
        return self.wrong + self.right

    @property
    def weight(self) -> float:
        """Weight in an average: examples in clear, at least 1 of what was noised."""
        return max(self.n, 1.0) if self.releases else self.n

    @property
    def measured(self) -> bool:
        """Whether there is anything to see; of noised sums nobody can say that there is not."""
        return bool(self.releases or self.n)

    @property
    def accuracy(self) -> float:
        """Share of held-out examples classified correctly, in 0..1; nan without any."""
        right, wrong = max(self.right, 0.0), max(self.wrong, 0.0)
        return right / (right + wrong) if right + wrong > 0 else float("nan")

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats, from 0; nan without examples."""
        return max(self.losses, 0.0) / self.weight if self.measured else float("nan")


READY, PREPARING, NO_BACKBONE = "ready", "preparing", "no backbone"
"""States of a site; others are codes of what keeps it from being ready."""


@dataclass(frozen=True, slots=True)
class Description:
    """A site's public description: nothing here depends on any of its examples.

    Attributes
    ----------
    backbone, width : str and int
        Digest of the active backbone and features per example; empty and 0 before one is there.
    state : str
        ``"ready"``, ``"preparing"``, ``"no backbone"``, or the code of what keeps the site from
        being ready.
    epsilon_left : float or None
        What a training record has left of the site's budget; None where the site does not tell.
    """

    name: str
    classes: tuple[str, ...]
    backbone: str
    width: int
    version: str
    state: str = "ready"
    epsilon_left: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    state : {"ok", "note", "broken"}
        A note does not stop anything from working.
    cure : str
        What to do about it; empty where there is nothing to do.
    """

    name: str
    state: Literal["ok", "note", "broken"]
    what: str
    cure: str = ""
