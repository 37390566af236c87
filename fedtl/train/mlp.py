"""Training of an MLP head, one site at a time, through Opacus when private."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from fedtl.errors import RecipeError
from fedtl.privacy.opacus_fit import fit_mlp
from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.fit import Examples, check_sampling
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import Arrays


def fit_mlp_head(
    head: Arrays,
    examples: Examples,
    *,
    task: TrainTask,
    plan: PrivacyPlan | None,
    streams: Streams,
    round_: int = 1,
) -> Arrays:
    """Train an MLP head on one site for one round; see :func:`fedtl.train.fit.fit`.

    Parameters
    ----------
    head : mapping of str to NDArray
        As made by :func:`fedtl.train.heads.initial_head`; left alone.
    round_ : int
        Server round from 1, for the learning-rate schedule.

    Raises
    ------
    PrivacyError
        A private plan meets a sampling that its accounting does not cover.
    RecipeError
        The task asks for what only linear heads have: Adam, averaging or shuffled batches.
    """
    check_sampling(task, plan)
    _check_supported(task, plan)
    if plan is not None and plan.unit_cap:
        examples = examples.at_most(plan.unit_cap)
    with one_thread(unless=examples.x.numel() > LARGE):
        trained = fit_mlp(
            {name: torch.from_numpy(np.array(values, np.float32)) for name, values in head.items()},
            examples.x,
            examples.y,
            steps=task.steps,
            sampling_rate=_rate(task, plan, len(examples)),
            clip_norm=plan.example_clip if plan else None,
            noise_multiplier=plan.noise_multiplier * max(plan.unit_cap, 1) if plan else None,
            expected_batch=plan.sampling_rate * plan.public_size if plan else 1.0,
            lr=partial(task.lr_at, round_),
            batches=streams.batches,
            normal=streams.normal,
            momentum=task.momentum,
            weight_decay=task.weight_decay,
            proximal_mu=task.proximal_mu,
        )
    return {name: values.numpy() for name, values in trained.items()}


def _rate(task: TrainTask, plan: PrivacyPlan | None, size: int) -> float:
    if plan is not None:
        return plan.sampling_rate
    return 1.0 if task.sampling == "full" else min(1.0, task.batch_size / max(size, 1))


def _check_supported(task: TrainTask, plan: PrivacyPlan | None) -> None:
    if plan is not None and plan.unit == "group" and (not plan.unit_cap or plan.sampling_rate < 1):
        raise RecipeError(
            "An MLP head is clipped example by example, in full batches where groups are private.",
            next_step="Set privacy.unit_cap to the most examples of a group that may be used, and "
            "train.sampling = 'full'; or train a linear head.",
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
