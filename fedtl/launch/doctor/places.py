"""Disk, permissions and ports: what both sides need of their machine."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedtl.report.words import size
from fedtl.types import Finding

_LITTLE_DISK = 2 << 30


def look_at_disk(folder: Path, what_for: str) -> Finding:
    """See whether there is room where a folder lies, or will lie."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    said = f"{size(free)} free for {what_for}"
    if free < _LITTLE_DISK:
        return Finding("disk", "note", said, "Free some space: a full disk stops every run.")
    return Finding("disk", "ok", said)


def look_at_secrets(folder: Path, secrets: Iterable[Path]) -> Iterator[Finding]:
    """See who else can read keys and settings, or write to the folder that they lie in."""
    if os.name != "posix":
        return
    loose = [path for path in secrets if path.exists() and _mode(path) & 0o077]
    if _mode(folder) & 0o022:
        loose.insert(0, folder)
    for path in loose:
        what = f"others on this machine may open '{path}'"
        yield Finding("permissions", "broken", what, f"chmod go-rwx '{path}'")
    strange = [
        path for path in (folder, *secrets) if path.exists() and not os.access(path, os.R_OK)
    ]
    for path in strange:
        what = f"this account cannot read '{path}'"
        yield Finding(
            "permissions", "broken", what, "Run this as the account that owns the folder."
        )
    if not loose and not strange:
        yield Finding("permissions", "ok", "keys and settings are this account's alone")


def look_at_port(name: str, host: str, port: int) -> Finding:
    """See whether a port of this machine is free for a service that does not run."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            cure = f"Take a port above 1023, or: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            return Finding(f"port {port}", "broken", f"{name} may not listen there", cure)
        except OSError as error:
            what = f"{name} cannot listen there: {error.strerror}"
            return Finding(f"port {port}", "broken", what, "Stop what has it, or take another.")
    return Finding(f"port {port}", "ok", f"free for {name}")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
