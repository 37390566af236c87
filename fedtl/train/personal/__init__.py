"""Personal heads by name: :class:`PersonalHead`. They are made at the sites and stay there.

Anyone's own class is named like a client-side step (:mod:`fedtl.train.objectives`), under the entry
point group ``fedtl.personal``.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtl.train.objectives import ObjectiveName, make_named
from fedtl.train.personal.personal import MOST_STEPS, Made, PersonalHead, Turn, trained

__all__ = [
    "MOST_STEPS",
    "PERSONAL_HEADS",
    "Made",
    "PersonalHead",
    "Turn",
    "make_personal",
    "trained",
]

_HERE = "fedtl.train.personal"
PERSONAL_HEADS: dict[str, str] = {
    "fine_tuned": f"{_HERE}.fine_tuned:FineTuned",
    "ditto": f"{_HERE}.ditto:Ditto",
    "apfl": f"{_HERE}.apfl:APFL",
    "mixture": f"{_HERE}.mixture:Mixture",
    "own_layer": f"{_HERE}.own_layer:OwnLayer",
}
"""Name to ``module:Class``."""


def make_personal(asked: ObjectiveName, *, allowed: Sequence[str] | None = None) -> PersonalHead:
    """Make a way to personal heads from this machine's own code.

    Raises
    ------
    FedtlError
        As :func:`fedtl.train.objectives.make_objective`.
    """
    head: PersonalHead = make_named(asked, PersonalHead, PERSONAL_HEADS, allowed)
    return head
