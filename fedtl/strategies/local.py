"""What strategies with a client-side step need to know of a round."""

from __future__ import annotations

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from fedtl.errors import StrategyError
from fedtl.train.task import TrainTask


def task_of(config: ConfigRecord) -> TrainTask:
    """Return the task that a config carries; one step of size 1 if it carries none."""
    text = config.get("task")
    return TrainTask.from_json(text) if isinstance(text, str) and text else TrainTask(rounds=1)


def path_of(config: ConfigRecord, round_: int) -> float:
    """Return the sum of the learning rates of a round's steps.

    Parameters
    ----------
    round_ : int
        From 1.

    Raises
    ------
    StrategyError
        It differs from site to site.
    """
    task = task_of(config)
    if task.epochs:
        raise StrategyError(
            "train.local_epochs lets sites take different numbers of steps, and the strategy needs "
            "the same number everywhere.",
            next_step="Set train.local_epochs = 0 and train.local_steps, or use fednova.",
        )
    return sum(task.lr_at(round_, at) for at in range(task.steps))


def sites_in_all(grid: Grid) -> int:
    """Return how many sites the federation has, of which a Grid may show a round's cohort only."""
    found = getattr(grid, "n_sites", 0)
    return found if isinstance(found, int) and found else max(len(list(grid.get_node_ids())), 1)
