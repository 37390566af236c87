"""What a site's steps minimise beside cross-entropy: a client-side step that anyone can script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Local:
    """What an objective knows of a round, for one array of the head, ``S`` sites in front.

    Attributes
    ----------
    name : str
        Which array: ``weight`` of a linear head; the arrays of an MLP come one after the other.
    start : Tensor
        ``[S, *shape]``: what the round began with.
    sent : mapping of str to Tensor
        What the server sent beside the head, the same for all sites.
    memory : mapping of str to Tensor
        ``[S, *shape]`` each: what every site remembers of its last round; zeros at first.
    path : float
        Sum of the learning rates of the round's steps: a mean gradient g moves the head by
        ``path * g``.
    round : int
        From 1.
    """

    name: str
    start: Tensor
    sent: Mapping[str, Tensor]
    memory: Mapping[str, Tensor]
    path: float
    round: int

    def received(self, what: str) -> Tensor:
        """Return what the server sent for this array as ``what/name``: ``[*shape]``."""
        return self.sent[f"{what}/{self.name}"]

    def remembered(self, what: str) -> Tensor:
        """Return what the sites remember for this array: ``[S, *shape]``."""
        return self.memory[f"{what}/{self.name}"]


class LocalObjective:
    """The base of client-side steps; every hook may be left as it is.

    Laws, on which privacy and the equality of all transports rest:

    * ``residuals`` treats every row by itself: the gradient of an example may depend on that
      example, the head and what was sent, never on other examples. It is clipped afterwards.
    * The other hooks see no example. They come after clipping and noise, and cost no privacy.
    * Sites stand side by side in the first axis and know nothing of each other.
    * The same arguments give the same bits: no random numbers, no state in ``self``.
    * Several threads may ask at once.

    Constructor arguments are the options that travel with a message: numbers, texts and truth
    values, keyword only.

    Examples
    --------
    >>> import torch
    >>> class Shrink(LocalObjective):
    ...     "Adds an L1 penalty to the loss."
    ...
    ...     def __init__(self, *, strength: float = 0.01) -> None:
    ...         self.strength = strength
    ...
    ...     def penalty_gradient(self, weights: Tensor, local: Local) -> Tensor:
    ...         return self.strength * weights.sign()
    >>> local = Local("weight", torch.zeros(1, 2, 3), {}, {}, 1.0, 1)
    >>> Shrink(strength=0.5).penalty_gradient(-torch.ones(1, 2, 3), local).unique()
    tensor([-0.5000])
    """

    remembers: Sequence[str] = ()
    """What a site keeps from round to round, each in the shape of the head."""

    def sends(self, head: Shapes) -> Shapes:
        """Return the shapes of the arrays that the server sends beside a head; none by default."""
        return {}

    def keeps(self, head: Shapes) -> Sequence[str]:
        """Return which of a head's arrays stay at the site, each with its own; none by default.

        A site's training begins with its own ones, as it remembers them, and its answer has the
        received ones in their place.
        """
        return ()

    def moves(self, name: str, step: int, steps: int) -> bool:
        """Say whether an array of the head moves in a step (from 0) of so many; all by default.

        For heads of several arrays: a linear head has one, which always moves.
        """
        return True

    def residuals(self, scores: Tensor, y: Tensor, sent: Mapping[str, Tensor]) -> Tensor | None:
        """Return the gradient of each example's loss with respect to its scores: ``[R, C]``.

        Parameters
        ----------
        scores : Tensor
            ``[R, C]`` of a batch; may be changed.
        y : Tensor
            ``[R]`` class indices.
        sent : mapping of str to Tensor
            What the server sent beside the head.

        Returns
        -------
        Tensor or None
            None stands for cross-entropy: ``softmax(scores) - one_hot(y)``.
        """
        return None

    def correction(self, local: Local) -> Tensor | None:
        """Return what is added to every gradient of the round: ``[S, *shape]``, or None."""
        return None

    def penalty_gradient(self, weights: Tensor, local: Local) -> Tensor | None:
        """Return the gradient of a penalty at ``[S, *shape]`` weights, or None."""
        return None

    def after_step(self, weights: Tensor, local: Local) -> None:
        """Change ``[S, *shape]`` weights in place after a step, for example project them."""

    def remember(self, trained: Tensor, local: Local) -> Mapping[str, Tensor]:
        """Return what the sites remember after the round: ``[S, *shape]`` for each name."""
        return {}


def like(head: Shapes, *what: str) -> Shapes:
    """Return shapes of arrays like the head's, ``what/name``.

    Examples
    --------
    >>> like({"weight": (3, 5)}, "control")
    {'control/weight': (3, 5)}
    """
    return {f"{one}/{name}": shape for one in what for name, shape in head.items()}
