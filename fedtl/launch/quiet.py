"""Flower's log while fedtl tells the story of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_flower(*, unless: bool = False) -> Iterator[None]:
    """Silence Flower's account of every round; fedtl has its own."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(before if unless else max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)
