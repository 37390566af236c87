"""A SuperNode under a Unix user of its own: it runs code of the coordinator, and reads no data.

The user's group may walk through the state folder to the agent's socket, and read nothing in it but
copies of what the SuperNode itself needs. Those lie in a folder that the user cannot change.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedtl.errors import ConfigError
from fedtl.home import unwritable, write_atomic
from fedtl.site.folder import PRIVATE_FOLDER

GIVEN = "supernode"
"""In a state folder: the copies."""
_WALKED, _READ_FOLDER, _READ_FILE = 0o2710, 0o750, 0o640
"""Of the state folder, whose new files, such as the socket, are its group's; and of the copies."""


def hand_over(folder: Path, user: str, *, needed: Sequence[Path], home: Path) -> list[Path]:
    """Let a user reach the socket of a state folder; return copies of files that he can read.

    Parameters
    ----------
    folder : Path
        The state folder.
    user : str
        Name of the Unix user.
    needed : sequence of Path
        What the user must read.
    home : Path
        A folder in the state folder that becomes the user's own.

    Raises
    ------
    ConfigError
        With code ``supernode.user``: root alone can do that, or there is no such user.
    CacheError
        The files cannot be handed over.
    """
    number, group = _ids(user)
    given = folder / GIVEN
    try:
        _made(folder, _WALKED, group)
        _made(given, _READ_FOLDER, group)
        _made(home, PRIVATE_FOLDER, group)
        os.chown(home, number, group)
        return [_copied(path, given / path.name, group) for path in needed]
    except OSError as error:
        raise unwritable(given, error) from error


def _made(folder: Path, mode: int, group: int) -> None:
    folder.mkdir(exist_ok=True)
    os.chown(folder, -1, group)
    folder.chmod(mode)


def _copied(path: Path, copy: Path, group: int) -> Path:
    body = path.read_bytes()
    write_atomic(copy, lambda file: file.write(body), mode=_READ_FILE)
    os.chown(copy, -1, group)
    return copy


def _ids(user: str) -> tuple[int, int]:
    import pwd

    try:
        found = pwd.getpwnam(user)
    except KeyError as error:
        raise ConfigError(
            f"supernode_user = '{user}' in site.toml is no user of this machine.",
            next_step=f"Make one: useradd --system --user-group {user}",
            code="supernode.user",
        ) from error
    if os.geteuid() != 0:
        raise ConfigError(
            f"supernode_user = '{user}' in site.toml, but only root can start a process of "
            "another user.",
            next_step="Run `fedtl site up` as root, or leave supernode_user empty.",
            code="supernode.user",
        )
    return found.pw_uid, found.pw_gid
