"""Runs a command as a unit or a container would: a read-only root, few places to write, no powers.

Made with bubblewrap, which makes the mounts that systemd and container engines make. Everything but
the named places is read-only or not there; /tmp is empty; the user is nobody unless said otherwise.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
NOBODY = 65534
_EMPTY = frozenset({"tmp", "var", "opt", "srv", "root", "home", "run", "proc", "dev", "mnt"})
_BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "LANG": "C.UTF-8"}
MISSING = "" if os.geteuid() == 0 and shutil.which("bwrap") else "needs root and bubblewrap"


@dataclass
class Sandbox:
    """What a command may see.

    ``writable`` and ``readable`` map places inside to folders outside. ``powers`` are those of a
    root that has no others; None: the user nobody.
    """

    writable: Mapping[str, Path]
    readable: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    powers: Sequence[str] | None = None

    def words(self, command: Sequence[str]) -> list[str]:
        kept = self.powers or ()
        words = ["bwrap", "--cap-drop", "ALL", "--clearenv", "--tmpfs", "/", "--chdir", "/"]
        for power in kept if self.powers is not None else ("CAP_SETUID", "CAP_SETGID"):
            words += ["--cap-add", power]
        for name, value in {**_BASE, **self.environment}.items():
            words += ["--setenv", name, value]
        for top in sorted(Path("/").iterdir()):
            if top.is_symlink():
                words += ["--symlink", os.readlink(top), str(top)]
            elif top.name not in _EMPTY and top.is_dir():
                words += ["--ro-bind", str(top), str(top)]
        words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
        mounts = [(f"{there}", there) for there in {Path(sys.base_prefix).resolve(), ROOT, VENV}]
        places = [("--ro-bind", *mount) for mount in (*mounts, *self.readable.items())]
        for how, inside, outside in places + [("--bind", *m) for m in self.writable.items()]:
            for parent in reversed(Path(inside).parents[:-1]):
                words += ["--perms", "0755", "--dir", str(parent)]  # else root's alone
            words += [how, str(outside), inside]
        words += ["--remount-ro", "/"]
        ids = f"--reuid={NOBODY}", f"--regid={NOBODY}"
        user = ("setpriv", *ids, "--clear-groups") if self.powers is None else ()
        return [*words, *user, *command]

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen(
                self.words(command), stdout=file, stderr=file, start_new_session=True
            )

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(command), capture_output=True, text=True, timeout=timeout, check=False
        )


def end(process: subprocess.Popen[bytes], patience: float = 120) -> int:
    """Send SIGTERM to the first process inside, as systemd and container engines do.

    Returns its exit code.
    """
    with suppress(psutil.Error):
        for inside in psutil.Process(process.pid).children():  # bubblewrap waits for it
            inside.send_signal(signal.SIGTERM)
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def unit(path: Path) -> dict[str, list[str]]:
    """Return the values of a unit file by key; a key may stand there more than once."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if match := re.match(r"([A-Za-z]+)=(.*)$", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def words_of(containerfile: Path, instruction: str) -> list[str]:
    """Return the words of an instruction of a Containerfile that is written as a list."""
    text = containerfile.read_text("utf-8")
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", text, re.M)
    words: list[str] = json.loads(found)
    return words
