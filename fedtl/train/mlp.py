"""Training of an MLP head, one site at a time, through Opacus when private."""

from __future__ import annotations

import numpy as np
import torch

from fedtl.privacy.opacus_fit import fit_mlp
from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.fit import Examples
from fedtl.train.streams import Streams
from fedtl.train.task import TrainTask
from fedtl.types import Arrays


def fit_mlp_head(
    head: Arrays,
    examples: Examples,
    task: TrainTask,
    plan: PrivacyPlan | None,
    streams: Streams,
    round_: int,
) -> Arrays:
    """Train an MLP head on one site for one round; see :func:`fedtl.train.fit.fit`."""
    raise NotImplementedError
