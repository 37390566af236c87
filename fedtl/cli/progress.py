"""Progress of a long command: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 2.0


class Show(Protocol):
    """Shows progress; called often, from any thread."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is; ``total`` 0 where it is unknown."""


class Reached:
    """Remembers how far each phase got, and passes it on."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.phases: dict[str, tuple[int, int]] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Note and show progress."""
        self.phases[phase] = (done, total)
        self._show(phase, done, total)


@contextmanager
def progress(console: Console, *, quiet: bool = False) -> Iterator[Reached]:
    """Yield what a long function is given as its ``progress``.

    Parameters
    ----------
    console : Console
        Bars if it is a terminal, lines otherwise.
    quiet : bool
        Show nothing.
    """
    if quiet:
        yield Reached(_nothing)
    elif console.is_terminal:
        with _bars(console) as bars:
            yield Reached(_Bars(bars))
    else:
        yield Reached(Lines(console))


def _nothing(phase: str, done: int, total: int) -> None:
    pass


def _bars(console: Console) -> Progress:
    from rich import progress as rich

    return rich.Progress(
        rich.TextColumn("{task.description:<16}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=console,
    )


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=total or None)
        self._bars.update(self._tasks[phase], completed=done, total=total or None)


class Lines:
    """Shows progress as a line now and then; see :class:`Show`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is, if it is time."""
        with self._lock:
            now, ended = time.monotonic(), 0 < total <= done
            due = ended or now - self._last >= SECONDS_BETWEEN_LINES
            if not due or phase in self._ended:
                return
            self._last = now
            if ended:
                self._ended.add(phase)
            of = f" of {total:,}" if total else ""
            self._console.print(f"{phase}: {done:,}{of}", markup=False, soft_wrap=True)
