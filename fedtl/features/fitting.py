"""Batches that fit the memory: halved when one does not, and kept small from then on."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from fedtl.backbone import Engine
from fedtl.errors import BackboneError

_log = logging.getLogger(__name__)


class Fitting:
    """An engine whose batches are cut into parts that fit the memory of its device.

    Parameters
    ----------
    engine : Engine
        Raises ``MemoryError`` where a batch does not fit.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._most: int | None = None

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features of a batch, in order.

        Raises
        ------
        BackboneError
            With code ``backbone.memory``: not even one picture fits.
        """
        while True:
            size = min(len(x), self._most or len(x))
            try:
                parts = [self._engine(x[at : at + size]) for at in range(0, len(x), max(size, 1))]
            except MemoryError as error:
                self._halve(size, error)
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _halve(self, size: int, error: MemoryError) -> None:
        if size <= 1:
            raise BackboneError(
                f"The memory does not hold a single picture in the engine '{self._engine.name}'.",
                next_step="Use a smaller image_size or backbone, another device in site.toml, or "
                "end other programs that use its memory.",
                code="backbone.memory",
            ) from error
        self._most = size // 2
        _log.warning(
            "The memory does not hold %d pictures in the engine '%s'; it goes on with %d at a "
            "time.",
            size,
            self._engine.name,
            self._most,
        )
