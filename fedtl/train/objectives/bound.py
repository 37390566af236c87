"""An objective together with what it was sent and what its sites remember."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtl.errors import FedtlError
from fedtl.train.objectives.objective import Local, LocalObjective, Shapes
from fedtl.train.task import TrainTask
from fedtl.types import Arrays


@dataclass(frozen=True, slots=True)
class Bound:
    """One round's objective for ``S`` sites.

    Attributes
    ----------
    rule : LocalObjective
        What is asked for.
    sent : mapping of str to Tensor
        Beside the head.
    memory : mapping of str to Tensor
        ``[S, *shape]`` by ``what/name``.
    path : float
        Sum of the round's learning rates.
    round : int
        From 1.
    """

    rule: LocalObjective
    sent: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    path: float = 1.0
    round: int = 1

    @classmethod
    def of(
        cls,
        rule: LocalObjective,
        head: Arrays,
        sent: Arrays,
        memories: Sequence[Arrays],
        *,
        task: TrainTask,
        round_: int,
    ) -> Bound:
        """Put together what sites know in a round.

        Parameters
        ----------
        head : mapping of str to NDArray
            What is trained.
        sent : mapping of str to NDArray
            Checked by :func:`check_sent`.
        memories : sequence of mapping of str to NDArray
            One for each site; what it lacks is zero.

        Raises
        ------
        FedtlError
            With code ``objective.memory``: a site remembers something of another shape.
        """
        memory = {
            f"{what}/{name}": torch.from_numpy(
                np.stack([_kept(m, f"{what}/{name}", values) for m in memories])
            )
            for what in rule.remembers
            for name, values in head.items()
        }
        received = {name: torch.from_numpy(values.copy()) for name, values in sent.items()}
        path = sum(task.lr_at(round_, step) for step in range(task.steps))
        return cls(rule, received, memory, path, round_)

    def to(self, like: Tensor) -> Bound:
        """Return the same with the type and device of a tensor."""
        sent, memory = (
            {name: values.to(like) for name, values in part.items()}
            for part in (self.sent, self.memory)
        )
        return replace(self, sent=sent, memory=memory)

    def part(self, sites: slice) -> Bound:
        """Return the same for some of the sites."""
        return replace(self, memory={name: values[sites] for name, values in self.memory.items()})

    def local(self, name: str, start: Tensor) -> Local:
        """Return what the rule may know of one array that began at ``start``."""
        return Local(name, start, self.sent, self.memory, self.path, self.round)

    def remember(self, start: Arrays, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the sites remember after the round, ``[S, *shape]`` by ``what/name``.

        Parameters
        ----------
        start : mapping of str to NDArray
            The head that all of them began with.
        trained : mapping of str to Tensor
            ``[S, *shape]``, left alone.

        Raises
        ------
        FedtlError
            With code ``objective.invalid``: the rule does not return what it promised.
        """
        kept: dict[str, Tensor] = {}
        for name, values in trained.items():
            began = torch.from_numpy(start[name].copy()).to(values).expand_as(values)
            told = dict(self.rule.remember(values, self.local(name, began)))
            if set(told) != set(self.rule.remembers):
                raise invalid(
                    self.rule, f"remembers {sorted(told)}, not {sorted(self.rule.remembers)}"
                )
            for what, one in told.items():
                if one.shape != values.shape:
                    raise invalid(self.rule, f"remembers '{what}' in the shape {tuple(one.shape)}")
                kept[f"{what}/{name}"] = one
        return kept


def check_sent(rule: LocalObjective, head: Arrays, sent: Arrays) -> None:
    """Refuse arrays beside a head that are not what the rule wants.

    Raises
    ------
    FedtlError
        With code ``objective.arrays``.
    """
    check_beside(
        rule, rule.sends({name: tuple(values.shape) for name, values in head.items()}), sent
    )


def check_beside(rule: object, shapes: Shapes, sent: Arrays) -> None:
    """Refuse arrays that are not finite, or not of the shapes that an objective or statistic wants.

    Raises
    ------
    FedtlError
        With code ``objective.arrays``.
    """
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    found = {name: tuple(values.shape) for name, values in sent.items()}
    finite = all(torch.from_numpy(values.copy()).isfinite().all() for values in sent.values())
    if wanted != found or not finite:
        raise FedtlError(
            f"{type(rule).__name__} was sent {found}, and wants finite {wanted}.",
            next_step=f"The strategy must send it: see {type(rule).__name__}.sends.",
            code="objective.arrays",
        )


def invalid(rule: LocalObjective, what: str) -> FedtlError:
    """Return the error of a rule that breaks its contract."""
    return FedtlError(
        f"{type(rule).__name__} {what}.",
        next_step="See the hooks of fedtl.train.objectives.LocalObjective.",
        code="objective.invalid",
    )


def _kept(memory: Arrays, name: str, like: NDArray[Any]) -> NDArray[Any]:
    if name not in memory:
        return np.zeros_like(like, np.float32)
    if memory[name].shape != like.shape:
        raise FedtlError(
            f"The site remembers '{name}' in the shape {memory[name].shape}, the head has "
            f"{like.shape}.",
            next_step="Start a new run: another head needs another memory.",
            code="objective.memory",
        )
    return memory[name]
