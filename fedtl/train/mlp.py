"""Training of an MLP head, one site at a time, through Opacus when private."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedtl.errors import RecipeError
from fedtl.privacy.opacus_fit import fit_mlp
from fedtl.privacy.release import Release
from fedtl.privacy.steering import CrossEntropy
from fedtl.train.fit import Examples, check_sampling
from fedtl.train.objectives.bound import Bound
from fedtl.train.objectives.guide import Guide
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import Arrays


def fit_mlp_head(
    head: Arrays,
    examples: Examples,
    *,
    task: TrainTask,
    release: Release | None,
    streams: Streams,
    round_: int = 1,
    objective: Bound | None = None,
) -> Arrays:
    """Train an MLP head on one site for one round; see :func:`fedtl.train.fit.fit`.

    Parameters
    ----------
    head : mapping of str to NDArray
        As made by :func:`fedtl.train.heads.initial_head`; left alone.
    round_ : int
        Server round from 1, for the learning-rate schedule.
    objective : Bound, optional
        A client-side step for this one site.

    Raises
    ------
    PrivacyError
        The release does not cover the task: its sampling, or shared noise.
    RecipeError
        The task asks for what only linear heads have: Adam, averaging or shuffled batches.
    """
    check_sampling(task, release)
    _check_supported(task, release)
    if release is not None and release.unit_cap:
        examples = examples.at_most(release.unit_cap)
    state = {name: torch.from_numpy(np.array(values, np.float32)) for name, values in head.items()}
    with one_thread(unless=examples.x.numel() > LARGE):
        trained = fit_mlp(
            state,
            examples.x,
            examples.y,
            steps=task.steps,
            sampling_rate=_rate(task, release, len(examples)),
            clip_norm=release.example_clip if release else None,
            noise_multiplier=release.noise_multiplier * max(release.unit_cap, 1)
            if release
            else None,
            expected_batch=release.sampling_rate * release.public_size if release else 1.0,
            lr=partial(task.lr_at, round_),
            batches=streams.batches,
            normal=streams.normal,
            momentum=task.momentum,
            weight_decay=task.weight_decay,
            steering=_Steered(objective, state, task.steps) if objective is not None else None,
        )
    return {name: values.numpy() for name, values in trained.items()}


class _Steered(CrossEntropy):
    """An objective at a single site, whose arrays get a site axis of length one."""

    def __init__(self, objective: Bound, state: Mapping[str, Tensor], steps: int) -> None:
        self._guides = {
            name: Guide.of(objective, value[None], name) for name, value in state.items()
        }
        self._rule, self._steps = objective.rule, steps
        self._done = dict.fromkeys(state, 0)
        self._still: dict[str, Tensor] = {}

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Return a sum whose gradient with respect to the scores is the objective's."""
        guide = next(iter(self._guides.values()))
        own = guide.residuals(scores.detach().clone(), y)
        return super().loss(scores, y) if own is None else (scores * own).sum()

    def correct(self, name: str, gradient: Tensor, weights: Tensor) -> None:
        self._guides[name].correct(gradient[None], weights[None])
        if not self._rule.moves(name, self._done[name], self._steps):
            gradient.zero_()
            self._still[name] = weights.clone()  # momentum and decay would move it

    def after_step(self, name: str, weights: Tensor) -> None:
        self._done[name] += 1
        if name in self._still:
            weights.copy_(self._still.pop(name))
        else:
            self._guides[name].after_step(weights[None])


def _rate(task: TrainTask, release: Release | None, size: int) -> float:
    if release is not None:
        return release.sampling_rate
    return 1.0 if task.sampling == "full" else min(1.0, task.batch_size / max(size, 1))


def _check_supported(task: TrainTask, release: Release | None) -> None:
    if (
        release is not None
        and release.unit == "group"
        and (not release.unit_cap or release.sampling_rate < 1)
    ):
        raise RecipeError(
            "An MLP head is clipped example by example, in full batches where groups are private.",
            next_step="Set privacy.unit_cap to the most examples of a group that may be used, and "
            "train.sampling = 'full'; or train a linear head.",
            code="task.unsupported",
        )
    if release is not None and release.honest_sites:
        raise RecipeError(
            "Noise that is shared out over sites is for linear heads only.",
            next_step="Set head.kind = 'linear', or privacy.model = 'site'.",
            code="task.unsupported",
        )
    for name, asked in (
        ("optimizer = 'adam'", task.optimizer == "adam"),
        (f"averaging = {task.averaging}", bool(task.averaging)),
        ("sampling = 'shuffle'", task.sampling == "shuffle"),
    ):
        if asked:
            raise RecipeError(
                f"train.{name} is for linear heads only.",
                next_step="Use SGD, full or Poisson batches and no averaging with an MLP head.",
                code="task.unsupported",
            )
