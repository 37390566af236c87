"""The place of an agent's socket."""

from __future__ import annotations

import stat
from pathlib import Path

from fedtl.agent.calls import LONGEST_PATH
from fedtl.agent.client import AgentClient
from fedtl.errors import CacheError, TransportError


def make_room(socket: Path) -> None:
    """Take away the socket of an agent that is gone; never that of one that answers.

    Raises
    ------
    TransportError
        Another agent answers there, or the path is too long for a socket.
    CacheError
        Something that is no socket lies there.
    """
    if len(str(socket)) > LONGEST_PATH:
        raise TransportError(
            f"The path of the socket '{socket}' is longer than {LONGEST_PATH} characters.",
            next_step="Name a shorter folder: the system limits the paths of sockets.",
            code="agent.socket",
        )
    if not socket.exists():
        return
    if not stat.S_ISSOCK(socket.stat().st_mode):
        raise CacheError(
            f"'{socket}' is in the way: it is no socket.",
            next_step="Move it, or name another place.",
            code="agent.socket",
        )
    try:
        found = AgentClient(socket).status(timeout=20)  # one that is gone refuses at once
    except TransportError:
        socket.unlink(missing_ok=True)
        return
    raise TransportError(
        f"An agent of '{found.site}' answers at '{socket}' already.",
        next_step="Stop it first, or name another place.",
        code="agent.running",
    )
