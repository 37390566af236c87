"""Python's cycle collector, kept from looking at everything in the middle of many messages."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put collections off until the block is left.

    Thousands of messages made at once set off collections that walk through all that torch and
    Flower have loaded: a third of a stacked message's cost. Only for blocks that compute and never
    wait, as what is in cycles piles up in them.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
