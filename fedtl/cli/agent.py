"""``fedtl site agent``: serve a site's data to its runs."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.progress import Lines, Show
from fedtl.cli.screen import clean_line, err, leave_now, warnings_shown
from fedtl.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from fedtl.agent.server import Answered

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's state folder.")]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK_SECONDS = 0.3
_STOPPED = "Stopped; the socket is gone and the ledger is closed."


def agent(
    folder: Folder = Path("site"),
    mode: Annotated[
        str, typer.Option(help="Permissions of the socket: 600, or 660 for a group of its own.")
    ] = "600",
    metrics: Annotated[
        int | None, typer.Option(help="Port on loopback for Prometheus; default: site.toml's.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Serve this site to its runs until it is stopped (SIGTERM or Ctrl-C).

    The one process that opens the site's images, features and ledger. It answers at once, and reads
    data and makes features meanwhile. A SuperNode reaches it by FOLDER/agent.sock; `fedtl site up`
    starts both. Each answer is a line of JSON on stderr that says nothing about data.
    """
    permissions, console = _permissions(mode), err()
    with _signals() as stopped, warnings_shown(console):
        from fedtl.agent.server import serving
        from fedtl.launch.metrics import exposed
        from fedtl.launch.own_site import SOCKET, own_site
        from fedtl.launch.site_metrics import SiteMetrics, Tally
        from fedtl.site.config import read_site

        read, show, tally = read_site(folder), _shown(console, quiet=quiet), Tally()
        port = read.config.metrics_port if metrics is None else metrics

        def log(answered: Answered) -> None:
            tally.heard(answered)
            _logged(answered)

        with (
            own_site(read, show, stuck=partial(_leave, console)) as site,
            serving(site, folder / SOCKET, mode=permissions, log=log) as served,
            exposed(SiteMetrics(read, tally, served.status), port),
        ):
            said = f"{site.name}: serving at {folder / SOCKET}"
            console.print(clean_line(said), markup=False, soft_wrap=True)
            while not stopped:
                time.sleep(_LOOK_SECONDS)
    console.print(_STOPPED, markup=False)


def _leave(console: Console) -> None:
    """End without the work that does not stop; all else is closed."""
    console.print(_STOPPED, markup=False)
    leave_now(0)


def _shown(console: Console, *, quiet: bool) -> Show:
    """Return what shows how far the preparation is, one line now and then."""
    lines = Lines(console)

    def show(phase: str, done: int, total: int) -> None:
        if phase == "ready":
            said = f"Ready: {done:,} training examples have their features."
            console.print(said, markup=False, soft_wrap=True)
        elif not quiet:
            lines(phase, done, total)

    return show


def _logged(answered: Answered) -> None:
    print(json.dumps(asdict(answered)), file=sys.stderr, flush=True)


def _permissions(mode: str) -> int:
    try:
        permissions = int(mode, 8)
    except ValueError:
        permissions = -1
    if permissions not in (0o600, 0o660):
        raise RecipeError(
            f"--mode is '{mode}': nobody else may ask a site's agent.",
            next_step="Give 600 (the owner), or 660 (a group that only the SuperNode is in).",
        )
    return permissions


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the signals that come while a block runs, and put the handlers back.

    A list and no event: a handler that takes a lock can meet it held by the very thread it
    interrupts, and a signal that another thread receives does not wake one that waits for a lock.
    """
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in _SIGNALS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
