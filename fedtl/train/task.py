"""What a site is asked to do in a training round: a frozen value that travels as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

from fedtl.errors import RecipeError, nearest
from fedtl.recipe import Recipe

SAMPLINGS = ("full", "poisson", "shuffle")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine", "linear")
HEADS = ("linear", "mlp")


@dataclass(frozen=True, slots=True)
class TrainTask:
    """The local training of one round.

    Attributes
    ----------
    rounds, steps : int
        Rounds of the whole run, and optimiser steps per round.
    epochs : int
        Where above 0, a site takes as many steps as go through its examples so often instead: not
        for private runs, whose plans count steps (and the number would tell the site's size).
    sampling : {"full", "poisson", "shuffle"}
        All examples in every step; each example with probability ``batch_size / size``; or batches
        cut from a shuffled order (not for private runs: its privacy is not the Poisson one).
    batch_size : int
        (Expected) batch size; ignored by full batches.
    optimizer : {"sgd", "adam"}
        ``momentum`` is SGD's; Adam uses (0.9, 0.999). Optimiser state lives for one round.
    lr : float
        Learning rate of the first step; ``schedule`` lowers it over the steps of the whole run.
    weight_decay : float
        Added to the gradient as ``weight_decay * W`` (after the noise: it needs no privacy).
    averaging : float
        Decay of an exponential average of the iterates of a round; 0 returns the last iterate.
    head : {"linear", "mlp"}
        ``hidden`` is the width of the MLP's hidden layer.
    """

    rounds: int
    steps: int = 1
    sampling: str = "full"
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    averaging: float = 0.0
    head: str = "linear"
    hidden: int = 64
    epochs: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("sampling", SAMPLINGS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("head", HEADS),
        ):
            if (value := getattr(self, name)) not in known:
                raise RecipeError(
                    f"train.{name} = {value!r} is unknown.", next_step=nearest(str(value), known)
                )
        counts = {"rounds": 1, "steps": 1, "batch_size": 1, "hidden": 1, "epochs": 0}
        for name, least in counts.items():
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise RecipeError(
                    f"train.{name} = {value!r} is no whole number from {least}.",
                    next_step=f"Give a whole number from {least}.",
                )
        for name in ("lr", "momentum", "weight_decay", "averaging"):
            value = getattr(self, name)
            top = 1.0 if name in ("momentum", "averaging") else math.inf
            if not (math.isfinite(value) and 0 <= value < top):
                raise RecipeError(
                    f"train.{name} = {value} is out of range.",
                    next_step="Give a finite number from 0"
                    + (" and below 1." if top == 1 else "."),
                )

    @classmethod
    def of(cls, recipe: Recipe) -> TrainTask:
        """Return the local training that a recipe asks for."""
        train = recipe.train
        return cls(
            rounds=train.rounds,
            steps=train.local_steps,
            sampling=train.sampling,
            batch_size=train.batch_size,
            optimizer=train.optimizer,
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            schedule=train.schedule,
            averaging=train.averaging,
            head=recipe.head.kind,
            hidden=recipe.head.hidden,
            epochs=train.local_epochs,
        )

    def at(self, examples: int) -> TrainTask:
        """Return the task of a site with so many examples, its number of steps filled in."""
        if not self.epochs:
            return self
        per_epoch = max(examples // max(self.rows(examples), 1), 1)
        return replace(self, steps=self.epochs * per_epoch, epochs=0)

    def rows(self, examples: int) -> int:
        """Return how many of a site's examples a step looks at; with Poisson batches, expects."""
        return examples if self.sampling == "full" else min(self.batch_size, examples)

    def lr_at(self, round_: int, step: int) -> float:
        """Return the learning rate of ``step`` (from 0) in ``round_`` (from 1)."""
        done = ((round_ - 1) * self.steps + step) / (self.rounds * self.steps)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "linear":
            return self.lr * (1 - done)
        return self.lr

    def to_json(self) -> str:
        """Return the task as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TrainTask:
        """Read a task; anything that is not exactly a task is refused."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise RecipeError(
                "The message carries no readable training task.",
                next_step="Server and site must run the same version of fedtl.",
                code="task.unreadable",
            ) from error
