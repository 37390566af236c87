"""Where features are read from a backbone, and how much of the picture's layout they keep.

A tap is ``"<stage>@<k>"``, the output of that stage averaged over a k x k grid of the picture, or
``"head"``, the vector the model's own classifier would see. Features of several stages transfer
better than the last one alone when the new pictures are unlike the old (Yosinski et al., 2014, "How
transferable are features in deep neural networks?").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedtl.errors import BackboneError, nearest

HEAD = "head"
AUTO = ("auto",)


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the places timm can tap: module name, channels, pixels per step of its output."""

    name: str
    channels: int
    reduction: int


@dataclass(frozen=True, slots=True)
class Tap:
    """A parsed tap; ``stage`` is an index into the stages, or -1 for the head."""

    stage: int
    grid: int


def stages(body: Any) -> list[Stage]:
    """Return the stages of a timm model, first to last; none where timm cannot tap it."""
    if not hasattr(body, "forward_intermediates"):
        return []
    info = getattr(body, "feature_info", [])
    rows = info.info if hasattr(info, "info") else info
    return [Stage(row["module"], row["num_chs"], row["reduction"]) for row in rows]


def normalise(taps: str | Sequence[str]) -> tuple[str, ...]:
    """Return taps as a tuple of names; "auto" stays ``("auto",)``, "final" is ``("head",)``.

    Examples
    --------
    >>> normalise("blocks.2@2, head"), normalise("final")
    (('blocks.2@2', 'head'), ('head',))
    """
    names = taps.split(",") if isinstance(taps, str) else taps
    cleaned = tuple(name.strip() for name in names if name.strip())
    if not cleaned:
        raise BackboneError(
            f"taps is {taps!r}, which names none.", next_step="Use 'auto' or 'final'."
        )
    return (HEAD,) if cleaned == ("final",) else cleaned


def automatic(known: Sequence[Stage]) -> tuple[str, ...]:
    """Return the taps that "auto" stands for.

    A pyramid gives its stages of reduction 8 and 16 on a 2 x 2 grid, its last stage, and the head.
    A model whose stages all have one reduction (a plain vision transformer) gives the mean of its
    last tokens and the head.

    Examples
    --------
    >>> automatic([Stage("a", 8, 4), Stage("b", 16, 8), Stage("c", 32, 16), Stage("d", 64, 32)])
    ('b@2', 'c@2', 'd@1', 'head')
    """
    if not known:
        return (HEAD,)
    deepest = {stage.reduction: stage for stage in known[:-1]}
    pyramid = known[-1].reduction > known[0].reduction
    middle = [deepest[step].name for step in (8, 16) if step in deepest] if pyramid else []
    return (*(f"{name}@2" for name in middle), f"{known[-1].name}@1", HEAD)


def parse(taps: Sequence[str], known: Sequence[Stage]) -> tuple[Tap, ...]:
    """Read tap names against the stages of a model.

    Raises
    ------
    BackboneError
        A tap is malformed, unknown (lists the valid ones) or named twice.
    """
    names = [stage.name for stage in known]
    if repeated := sorted({tap for tap in taps if list(taps).count(tap) > 1}):
        raise BackboneError(f"The tap {repeated[0]!r} is named twice.", next_step="Name it once.")
    return tuple(Tap(-1, 1) if tap == HEAD else _parse_stage(tap, names) for tap in taps)


def _parse_stage(tap: str, names: list[str]) -> Tap:
    match = re.fullmatch(r"(.+)@([1-9][0-9]?)", tap)
    if match and match[1] in names:
        return Tap(names.index(match[1]), int(match[2]))
    valid = [HEAD, *(f"{name}@1" for name in names)]
    raise BackboneError(
        f"taps names {tap!r}, which this backbone does not have.",
        next_step=f"{nearest(tap, valid)} The number after @, 1 to 99, is the grid's side.",
        code="backbone.tap",
    )
