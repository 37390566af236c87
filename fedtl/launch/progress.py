"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(phase, done, total)``; called often, from any thread."""


def silent(phase: str, done: int, total: int) -> None:
    """Show no progress."""
