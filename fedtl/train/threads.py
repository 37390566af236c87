"""How many threads a computation deserves, decided by its own size alone.

Small matrix products on several threads are a little faster on an idle machine, and twenty times
slower where other processes want the cores too: the threads spin while they wait for one another.
Summation order may depend on the number of threads, so the choice must not depend on who else is in
a cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

LARGE = 1 << 24
"""Number of values (64 MiB of float32) from which all threads are used."""
_WORTH_IT = 1 << 26
"""Multiplications that take longer than threads to start."""

Part = TypeVar("Part")


@contextmanager
def one_thread(*, unless: bool = False) -> Iterator[int]:
    """Compute on one thread, ``unless`` the data is :data:`LARGE`; put the setting back after.

    Yields how many threads there are for what is spread over them on purpose.
    """
    before = torch.get_num_threads()
    if unless:
        yield before
        return
    if before > 1:
        torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield before
    finally:
        if before > 1:
            torch.set_num_threads(before)


def spread(work: Callable[[Part], None], parts: Sequence[Part], *, threads: int, size: int) -> None:
    """Work on every part on one thread; where it is worth it, on many parts at once.

    Parameters
    ----------
    work : callable
        What it computes must not depend on the order of the parts.
    threads : int
        How many parts at once.
    size : int
        Multiplications in all.
    """
    with one_thread():
        if threads == 1 or size < _WORTH_IT or len(parts) == 1:
            for part in parts:
                work(part)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, parts):
                pass


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """Find the loaded BLAS libraries, once."""
    return ThreadpoolController()
