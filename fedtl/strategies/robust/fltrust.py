"""FLTrust: sites are trusted as far as they go the way of the server's own small data set.

Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS
2021, arXiv:2012.13995, equations 2 to 4: g_0 is what the server's data make of the head with the
sites' own local steps; a site's trust is ReLU(cos(g_i, g_0)); its update is scaled to the length of
g_0; the head moves by the average weighted by trust. Holds for any share of bad sites, while the
server's data are clean and alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.errors import StrategyError
from fedtl.features.prepare import prepared_rows
from fedtl.strategies.robust.rule import Robust
from fedtl.strategies.updates import Matrix, flat, lengths
from fedtl.train.fit import Examples, fit
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask


def trusted_mean(updates: Matrix, own: Matrix) -> Matrix:
    """Return the average of updates of the length of ``own``, weighted by ReLU of the cosine.

    Zero where nobody is trusted.

    Parameters
    ----------
    own : NDArray
        ``[p]``, the server's own update g_0.

    Examples
    --------
    >>> trusted_mean(np.array([[0.0, 8.0], [3.0, 3.0], [-9.0, 0.0]]), np.array([2.0, 0.0]))
    array([1.41421356, 1.41421356])
    """
    found, length = lengths(updates), float(np.linalg.norm(own))
    units = updates / np.where(found > 0, found, 1.0)[:, None]
    trust = np.maximum(units @ own, 0.0)
    if not trust.sum() > 0:
        return np.zeros_like(own)
    return np.asarray(length * (trust @ units) / trust.sum())


class FLTrust(Robust):
    """The average of updates that go the way of the server's own.

    Parameters
    ----------
    root : str
        ``.npz`` file of the server's own data: ``x`` ``[m, d]`` features of the recipe's backbone,
        raw or prepared with their constant last feature, and ``y`` ``[m]`` class numbers in the
        order of the class list. About 100 do (Cao et al., section V). They must be nobody's
        secret: training on them is not private.
    """

    def __init__(self, *, root: str) -> None:
        super().__init__()
        self.root = root
        self._x, self._y = _read(Path(root).expanduser())
        self._task, self._round, self._seed = TrainTask(1), 1, 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head and what sites are asked to do with it.

        Raises
        ------
        StrategyError
            The head is not linear, or the server's data do not fit it.
        """
        task, seed = config.get("task"), config.get("seed")
        self._round, self._seed = server_round, seed if isinstance(seed, int) else 0
        if isinstance(task, str) and task:
            self._task = TrainTask.from_json(task)
        messages = super().configure_train(server_round, arrays, config, grid)
        if "weight" not in self._head:
            raise StrategyError(
                f"FLTrust trains linear heads, and was given {', '.join(self._head)}.",
                next_step="Set head.kind = 'linear', or choose another rule.",
            )
        self._examples(*self._head["weight"].shape)
        return messages

    def combine(self, updates: Matrix) -> Matrix:
        """Return the average weighted by trust."""
        return trusted_mean(updates, self._own())

    def _own(self) -> Matrix:
        """Train the server's data as a site trains its own, without privacy."""
        weight = np.asarray(self._head["weight"], np.float32)
        (trained,) = fit(
            torch.from_numpy(weight.copy())[None],
            [self._examples(*weight.shape)],
            task=self._task,
            release=None,
            streams=[SeededStreams(self._seed, self._round, "", "root")],
            round_=self._round,
        )
        return flat({"weight": trained.numpy()}) - flat({"weight": weight})

    def _examples(self, classes: int, width: int) -> Examples:
        x = prepared_rows(self._x) if self._x.shape[1] == width - 1 else self._x
        if x.shape[1] != width or self._y.max() >= classes:
            raise StrategyError(
                f"'{self.root}' has {self._x.shape[1]} features and classes up to "
                f"{self._y.max()}; the head has {width - 1} features and {classes} classes.",
                next_step="Make root from features of the recipe's own backbone and classes.",
            )
        return Examples.of(torch.from_numpy(x), torch.from_numpy(self._y))


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the server's data, as raw features or prepared ones.

    Raises
    ------
    ValueError
        The file is missing, or holds anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = np.asarray(file["x"], np.float32), np.asarray(file["y"], np.int64)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"root = '{path}' is no .npz file with x and y ({error})") from error
    if x.ndim != 2 or y.shape != (len(x),) or not len(x) or not np.isfinite(x).all():
        raise ValueError(
            f"root = '{path}' has x of {list(x.shape)} and y of {list(y.shape)}; it needs finite "
            "[m, d] features and [m] class numbers"
        )
    if y.min() < 0:
        raise ValueError(f"root = '{path}' has the class number {y.min()}")
    return x, y
