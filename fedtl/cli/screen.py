"""What goes to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from fedtl.types import Finding


def out() -> Console:
    """Return the console of results."""
    from rich.console import Console

    return Console(highlight=False)


def err() -> Console:
    """Return the console of errors, warnings and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as JSON, and nothing else, on stdout."""
    print(json.dumps(value, indent=1))


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings, one line each, and the cure of each below it."""
    styles = {"broken": "red", "note": "yellow"}
    console = out()
    for finding in findings:
        line = f"{finding.state:<7}{clean_line(finding.name):<20}{clean_line(finding.what)}"
        console.print(line, style=styles.get(finding.state), markup=False, soft_wrap=True)
        if finding.cure:
            cure = clean_line(finding.cure)
            console.print(f"{'':<27}-> {cure}", markup=False, soft_wrap=True)


def say(*lines: str) -> None:
    """Print results, one line each; what comes from outside is cleaned, an indent is kept."""
    console = out()
    for line in lines:
        indent = line[: len(line) - len(line.lstrip(" "))]
        console.print(indent + clean_line(line), markup=False, soft_wrap=True)


def print_log(
    service: str, known: Sequence[str], folder: Callable[[], Path], n: int, *, follow: bool
) -> None:
    """Print the end of a service's log, and what is appended until Ctrl-C.

    Parameters
    ----------
    known : sequence of str
        The services that there are.
    folder : callable
        Reads the state folder, and returns where it is.
    n : int
        How many lines.

    Raises
    ------
    ConfigError
        There is no such service.
    """
    from fedtl.errors import ConfigError, nearest
    from fedtl.launch.logs import last_lines, new_lines
    from fedtl.launch.services import log_file

    if service not in known:
        raise ConfigError(f"There is no service '{service}'.", next_step=nearest(service, known))
    path = log_file(folder(), service)
    say(*last_lines(path, n))
    if follow:
        with suppress(KeyboardInterrupt):
            for line in new_lines(path):
                say(line)


def clean_line(text: str) -> str:
    r"""Return text as one line without anything a terminal might obey.

    Examples
    --------
    >>> clean_line("two\nlines\x1b[2J")
    'two lines�[2J'
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


class _OneLine(logging.Handler):
    """Prints a record as one line; a line that was printed before is not repeated."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        more = f" {type(error).__name__}: {error}{_place(error)}" if error else ""
        line = clean_line(f"Warning: {record.getMessage()}{more}")
        if line not in self._printed:
            self._printed.add(line)
            self._console.print(line, style="yellow", markup=False, soft_wrap=True)
        if error and os.environ.get("FEDTL_DEBUG", "") not in ("", "0"):
            self._console.print_exception()


def _place(error: BaseException) -> str:
    """Return where an exception was raised, in brackets."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    return f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""


@contextmanager
def warnings_shown(console: Console) -> Iterator[None]:
    """Show fedtl's own warnings, one line each."""
    logger, handler = logging.getLogger("fedtl"), _OneLine(console)
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def leave_now(code: int = 130) -> NoReturn:
    """End the process, by default as after an interrupt; what it wrote is whole on disk.

    Without waiting for threads: Flower's simulation runs the server in one that is no daemon and,
    after an interrupt, waits without end for workers that are gone. And without Python's own end,
    which answers an interrupt that a compiled library saw first by killing the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def stoppable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, and let no interrupt be lost, so that a stopped job ends soon.

    Python drops what is raised in a finaliser or in the callback of a weak reference, an interrupt
    too: one that is met there is sent again a moment later. And a compiled library that is met
    while it is imported turns it into an error of its own.
    """
    main = threading.main_thread().ident or 0
    shown, sent, stopped = sys.unraisablehook, list[threading.Timer](), threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            shown(dropped)
            return
        sent.append(threading.Timer(0.02, signal.pthread_kill, (main, signal.SIGTERM)))
        sent[-1].start()

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGINT] is signal.SIG_IGN:  # as of a job in a script's background
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = again
    try:
        yield
    except Exception as error:
        if stopped.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = shown
        for timer in sent:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
