"""A site's own head: made of the global one and the site's examples, and it stays at the site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedtl.train.batches import Examples
from fedtl.train.fit import fit
from fedtl.train.objectives import Bound, LocalObjective
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.types import Arrays

MOST_STEPS = 20_000
"""That a site takes for a head of its own, whatever it is asked."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a site knows when it is its personal head's turn: after a round, where one is evaluated.

    Attributes
    ----------
    head : mapping of str to NDArray
        The global head; all but what it says of its features.
    kept : mapping of str to NDArray
        What the method kept after its last turn here; empty at first.
    steps : int
        Steps that the federation has taken since that turn: as many are due.
    rate : float
        The federation's learning rate in this round.
    alone : callable
        Returns a head that the site trained by itself, for as long as the federation trains in all;
        made once.
    """

    head: Arrays
    kept: Arrays
    steps: int
    rate: float
    alone: Callable[[], Arrays]
    examples: Examples = field(repr=False)
    task: TrainTask = field(repr=False)
    streams: Streams = field(repr=False)

    def fit(
        self,
        start: Arrays,
        *,
        steps: int = 0,
        rate: float = 0.0,
        objective: LocalObjective | None = None,
        sent: Arrays | None = None,
    ) -> Arrays:
        """Train a head on the site's training examples, without privacy: it stays here.

        Parameters
        ----------
        start : mapping of str to NDArray
            Left alone.
        steps : int
            0: those that are due.
        rate : float
            Learning rate; 0: the federation's.
        objective, sent : LocalObjective and mapping, optional
            A client-side step, and what it would be sent.
        """
        task = replace(
            self.task,
            rounds=1,
            steps=min(steps or self.steps, MOST_STEPS),
            lr=rate or self.rate,
            schedule="constant",
        )
        return trained(start, self.examples, task, self.streams, objective=objective, sent=sent)


def trained(
    start: Arrays,
    examples: Examples,
    task: TrainTask,
    streams: Streams,
    *,
    round_: int = 1,
    objective: LocalObjective | None = None,
    sent: Arrays | None = None,
) -> Arrays:
    """Train a head of any kind for one round, without privacy."""
    bound = None
    if objective is not None:
        bound = Bound.of(objective, start, sent or {}, [{}], task=task, round_=round_)
    if "weight" not in start:
        from fedtl.train.mlp import fit_mlp_head

        return fit_mlp_head(
            start,
            examples,
            task=task,
            release=None,
            streams=streams,
            round_=round_,
            objective=bound,
        )
    (weight,) = fit(
        torch.from_numpy(np.array(start["weight"], np.float32))[None],
        [examples],
        task=task,
        release=None,
        streams=[streams],
        round_=round_,
        objective=bound,
    )
    return {"weight": weight.numpy()}


@dataclass(frozen=True, slots=True)
class Made:
    """What a turn made.

    Attributes
    ----------
    heads : sequence of mapping of str to NDArray
        The personal head; or several, of which held-out examples choose one.
    kept : mapping of str to NDArray
        What the method is to find at its next turn.
    """

    heads: Sequence[Arrays]
    kept: Arrays = field(default_factory=dict)


class PersonalHead:
    """The base of ways to make a personal head.

    Neither the head nor what is kept ever leaves the site; what is told of it is how many held-out
    examples it gets right, and that only where results may be told in clear.

    Constructor arguments are the options that travel with a message, keyword only.

    Examples
    --------
    >>> class AsItIs(PersonalHead):
    ...     "The global head itself."
    ...
    ...     def make(self, turn: Turn) -> Made:
    ...         return Made([turn.head])
    """

    private = False
    """Whether it is made of nothing but releases that the plan covers: then its results may be told
    with noise, like the global head's."""

    def make(self, turn: Turn) -> Made:
        """Return the personal head after a turn."""
        raise NotImplementedError
