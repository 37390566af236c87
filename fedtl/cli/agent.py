"""``fedtl site agent`` and ``fedtl site status``: serve a site's data to its runs, and look in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.progress import progress
from fedtl.cli.screen import clean_line, err, out, print_json, stoppable, warnings_shown
from fedtl.errors import RecipeError

if TYPE_CHECKING:
    from fedtl.agent.agent_pb2 import State

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's state folder.")]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def agent(
    folder: Folder = Path("site"),
    mode: Annotated[
        str, typer.Option(help="Permissions of the socket: 600, or 660 for a group of its own.")
    ] = "600",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Serve this site to its runs until it is stopped (SIGTERM or Ctrl-C).

    The one process that opens the site's images, features and ledger. A SuperNode reaches it by
    FOLDER/agent.sock: flower-supernode ... --node-config 'agent="FOLDER/agent.sock"'
    """
    from fedtl.agent.server import serving
    from fedtl.launch.own_site import SOCKET, own_site
    from fedtl.site.config import read_site

    permissions, console = _permissions(mode), err()
    read = read_site(folder)
    with ExitStack() as open_ones:
        open_ones.enter_context(warnings_shown(console))
        try:
            with stoppable(), progress(console, quiet=quiet) as reached:
                site = open_ones.enter_context(own_site(read, reached))
                examples = len(site.examples[0])  # what cannot be read is found before anybody asks
        except KeyboardInterrupt as error:
            console.print("Stopped; the features made so far are kept.", markup=False)
            raise typer.Exit(130) from error
        stopped = open_ones.enter_context(_signals())
        open_ones.enter_context(serving(site, folder / SOCKET, mode=permissions))
        said = f"{site.name}: {examples} training examples, serving at {folder / SOCKET}"
        console.print(clean_line(said), markup=False, soft_wrap=True)
        stopped.wait()
    console.print("Stopped; the socket is gone and the ledger is closed.", markup=False)


def status(
    folder: Folder = Path("site"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the agent of a site is doing; exit code 2 if none answers."""
    from fedtl.agent.client import AgentClient
    from fedtl.launch.own_site import SOCKET

    state = AgentClient(folder / SOCKET).status()
    if as_json:
        print_json({name: getattr(state, name) for name in _FIELDS})
        return
    out().print(clean_line(_line(state)), markup=False, soft_wrap=True)


_FIELDS = ("site", "version", "busy", "waiting", "answered", "refused", "uptime_seconds")


def _line(state: State) -> str:
    from fedtl.report.words import count, duration

    busy = f"answers a '{state.busy}' message, {state.waiting} wait" if state.busy else "idle"
    counts = f"{count(state.answered)} answered and {count(state.refused)} refused"
    since = duration(state.uptime_seconds)
    return f"{state.site}: {busy}; {counts} in {since}; fedtl {state.version}"


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
def _signals() -> Iterator[threading.Event]:
    """Turn signals into an event while a block runs, and put the handlers back."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in _SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
