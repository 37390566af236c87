"""What a site remembers from round to round for a client-side step, such as a control variate.

It is made of heads that have left the site, so it costs no privacy. The state before the last round
is kept as well: a round that is repeated begins with what it began with.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import CacheError
from fedtl.types import Arrays

Rounds = dict[int, dict[str, NDArray[np.float32]]]
_KEPT = 2
_MOST_RUNS = 64


class Memory:
    """A site's memory, in this process or in a folder.

    Parameters
    ----------
    folder : Path, optional
        Where it outlives the process; without one it does not.
    alone : bool
        Whether no other process writes there, so that nothing is read twice.
    """

    def __init__(self, folder: Path | None = None, *, alone: bool = True) -> None:
        self._folder, self._alone = folder, alone
        self._known: dict[str, Rounds] = {}

    def before(self, run: str, objective: str, round_: int) -> Arrays:
        """Return what was kept last before a round; empty if nothing was.

        Parameters
        ----------
        run, objective : str
            Whose memory: another run, or another objective, has another.

        Raises
        ------
        CacheError
            With code ``memory.damaged``.
        """
        rounds = self._read(_key(run, objective))
        return rounds[max(earlier)] if (earlier := [r for r in rounds if r < round_]) else {}

    def keep(self, run: str, objective: str, round_: int, arrays: Arrays) -> None:
        """Keep what is to be remembered after a round.

        Raises
        ------
        CacheError
            With code ``memory.unwritten``.
        """
        key = _key(run, objective)
        rounds = {r: kept for r, kept in self._read(key).items() if r < round_}
        rounds[round_] = {name: np.array(values, np.float32) for name, values in arrays.items()}
        kept = {r: rounds[r] for r in sorted(rounds)[-_KEPT:]}
        if self._alone:
            self._known[key] = kept
        if self._folder is not None:
            _write(self._folder, key, kept)

    def _read(self, key: str) -> Rounds:
        if key in self._known or self._folder is None:
            return self._known.get(key, {})
        return _load(self._folder / key)


def _key(run: str, objective: str) -> str:
    return hashlib.sha256(f"{run}\n{objective}".encode()).hexdigest()[:32] + ".safetensors"


def _load(file: Path) -> Rounds:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        rounds: Rounds = {}
        for name, values in load(file.read_bytes()).items():
            number, _, rest = name.partition("/")
            rounds.setdefault(int(number), {})[rest] = values
        return rounds
    except FileNotFoundError:
        return {}
    except (OSError, SafetensorError, ValueError) as error:
        raise CacheError(
            f"What the site remembers in '{file}' cannot be read.",
            next_step="Put the file back from a copy, or start a new run.",
            code="memory.damaged",
        ) from error


def _write(folder: Path, key: str, rounds: Rounds) -> None:
    """Replace a file as a whole; beyond so many runs the oldest are forgotten."""
    from safetensors.numpy import save

    flat = {f"{r}/{name}": values for r, kept in rounds.items() for name, values in kept.items()}
    part = folder / f"{key}.part"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_bytes(save(flat))
        os.replace(part, folder / key)
        files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for old in files[:-_MOST_RUNS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"What the site remembers cannot be written to '{folder}': {error.strerror}.",
            next_step="Free some disk space, or check the folder's permissions.",
            code="memory.unwritten",
        ) from error
