"""How many threads a computation deserves, decided by its own size alone.

Small matrix products on several threads are a little faster on an idle machine, and twenty times
slower where other processes want the cores too: the threads spin while they wait for one another.
Summation order may depend on the number of threads, so the choice must not depend on who else is in
a cohort.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

LARGE = 1 << 24
"""Number of values (64 MiB of float32) from which all threads are used."""


@contextmanager
def one_thread(*, unless: bool = False) -> Iterator[None]:
    """Compute on one thread, ``unless`` the data is :data:`LARGE`; put the setting back after."""
    if unless:
        yield
        return
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """Find the loaded BLAS libraries, once."""
    return ThreadpoolController()
