"""Which head a site should use: the global one, its personal one, or one it trained alone.

A federation may make a site worse off. So the head that the site trained alone is kept unless
another is better on held-out examples beyond doubt: by an exact sign test on those that the two
answer differently (McNemar 1947), with a confidence that covers both contenders: at 95 %, a
federation that is of no use to a site is taken for useful at most once in twenty times.

What is reported of the chosen head would flatter it if the same examples chose it and measured it.
So half of them choose for the other half, and the reverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedtl.train.batches import Examples
from fedtl.train.heads import logits
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import ALONE, GLOBAL, PERSONAL, Arrays

Right = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A head's answers on ``n`` examples: whether each is right, and its loss in nats."""

    right: Right
    losses: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The outcome.

    Attributes
    ----------
    choice : str
        ``"alone"``, ``"global"`` or ``"personal"``, by all held-out examples.
    member : int
        Which of the personal heads, by all of them.
    members : tuple of int
        Which of them answers on either half: the one that the other half chose.
    halves : NDArray
        ``[n]``, the half of every example: 0 or 1.
    right : int
        Examples that the head in use gets right, chosen by the other half.
    global_ahead, personal_ahead : tuple of int
        Units that are better off with the head than with the one trained alone, and worse off.
    """

    choice: str
    member: int
    members: tuple[int, int]
    halves: NDArray[np.int64]
    right: int
    global_ahead: tuple[int, int]
    personal_ahead: tuple[int, int]


def choose(
    alone: Right,
    global_: Right,
    personal: Sequence[Answers],
    of_row: NDArray[np.int64],
    *,
    confidence: float,
) -> Chosen:
    """Choose a head by what the heads get right.

    Parameters
    ----------
    alone, global_ : NDArray
        ``[n]``, whether the head gets each held-out example right.
    personal : sequence of Answers
        Of each of the personal heads, of which the one with the smallest loss is chosen.
    of_row : NDArray
        ``[n]``, the unit of each example: what belongs together is counted once.
    confidence : float
        In [0, 1); see :func:`is_better`.
    """
    halves = of_row % 2
    picked = []
    used, own = np.zeros(len(alone), bool), np.zeros(len(alone), bool)
    for half in (0, 1):
        there, other = halves == half, halves != half
        member, choice = _picked(alone, global_, personal, of_row, other, confidence)
        answers = {ALONE: alone, GLOBAL: global_, PERSONAL: personal[member].right}[choice]
        used[there], own[there] = answers[there], personal[member].right[there]
        picked.append(member)
    member, choice = _picked(
        alone, global_, personal, of_row, np.ones(len(alone), bool), confidence
    )
    return Chosen(
        choice,
        member,
        (picked[0], picked[1]),
        halves,
        int(used.sum()),
        differing(global_, alone, of_row),
        differing(own, alone, of_row),
    )


def _picked(
    alone: Right,
    global_: Right,
    personal: Sequence[Answers],
    of_row: NDArray[np.int64],
    rows: Right,
    confidence: float,
) -> tuple[int, str]:
    """Return the best of the personal heads on some rows, and which kind of head to use."""
    member = int(np.argmin([answers.losses[rows].sum() for answers in personal]))
    contenders: Mapping[str, Right] = {GLOBAL: global_, PERSONAL: personal[member].right}
    better = [
        (int(answers[rows].sum()), name)
        for name, answers in contenders.items()
        if is_better(*differing(answers[rows], alone[rows], of_row[rows]), confidence)
    ]
    return member, max(better, key=lambda one: one[0])[1] if better else ALONE


def differing(first: Right, second: Right, of_row: NDArray[np.int64]) -> tuple[int, int]:
    """Return the units of which the first head gets more right, and those of which the second does.

    Examples
    --------
    >>> first, second = np.array([True, True, False]), np.array([False, True, True])
    >>> differing(first, second, np.arange(3)), differing(first, second, np.zeros(3, int))
    ((1, 1), (0, 0))
    """
    balance = np.bincount(of_row, weights=first.astype(float) - second)
    return int((balance > 0).sum()), int((balance < 0).sum())


def is_better(gained: int, lost: int, confidence: float) -> bool:
    """Say whether so many gains beside so many losses are beyond chance, one-sided, for two looks.

    At confidence 0 more gains than losses are enough.

    Examples
    --------
    >>> is_better(6, 0, 0.95), is_better(5, 0, 0.95), is_better(2, 1, 0.0), is_better(1, 1, 0.0)
    (True, False, True, False)
    """
    from scipy.stats import binom

    # P(at least so many gains of all that differ) if gains and losses were alike
    return bool(binom.sf(gained - 1, gained + lost, 0.5) <= (1 - confidence) / 2)


@torch.inference_mode()
def answers_of(head: Arrays, examples: Examples) -> Answers:
    """Return how a head answers on some examples."""
    with one_thread(unless=examples.x.numel() > LARGE):
        scores = logits(head, examples.x)
        losses = torch.nn.functional.cross_entropy(scores, examples.y, reduction="none")
        return Answers((scores.argmax(1) == examples.y).numpy(), losses.double().numpy())


def difference(gained: int, lost: int, units: int) -> tuple[float, float, float]:
    """Return the difference between two accuracies on the same units, and its 95 % interval.

    Agresti and Min, "Simple Improved Confidence Intervals for Comparing Matched Proportions",
    Statistics in Medicine 24, 2005: half a unit is added to each of the four cells.

    Returns
    -------
    tuple of float
        Difference, lower and upper end, as shares in -1..1; zeros without units.

    Examples
    --------
    >>> [round(v, 3) for v in difference(16, 4, 100)]
    [0.12, 0.033, 0.203]
    """
    if not units:
        return 0.0, 0.0, 0.0
    up, down, n = gained + 0.5, lost + 0.5, units + 2
    middle = (up - down) / n
    spread = 1.959964 * math.sqrt(max(up + down - (up - down) ** 2 / n, 0.0)) / n
    return (gained - lost) / units, max(middle - spread, -1.0), min(middle + spread, 1.0)
