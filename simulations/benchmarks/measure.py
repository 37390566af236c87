"""What is measured: one process per figure, its command and its answer; see ``run.py``."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtl.errors import FedtlError

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 1800

Figures = dict[str, Any]
Contender = Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Parameters
    ----------
    what, against : str
        What was measured, and what it is compared with.
    aim : float
        The number to reach.
    at_least : bool
        Whether a larger number is better.
    values : tuple of float
        What was measured, one per repetition; every ratio comes from neighbours in time.
    unit : str
        ``x`` for ratios, ``GB``.
    absolute : str
        The two absolute figures behind the ratio.
    note : str
        What a reader must know to judge it.
    """

    what: str
    against: str
    aim: float
    at_least: bool
    values: tuple[float, ...]
    unit: str
    absolute: str
    note: str = ""

    @property
    def measured(self) -> float:
        """Median over the repetitions."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the median reaches the aim."""
        return self.measured >= self.aim if self.at_least else self.measured <= self.aim

    @property
    def aimed(self) -> str:
        """The aim in words."""
        return f"{'≥' if self.at_least else '≤'} {self.aim:g} {self.unit}"

    @property
    def shown(self) -> str:
        """The median and the range."""
        low, high = min(self.values), max(self.values)
        return f"{self.measured:.3g} {self.unit} ({low:.3g} to {high:.3g})"


@dataclass(slots=True)
class Bench:
    """Runs contenders in processes of their own, and keeps every answer.

    Parameters
    ----------
    work : Path
        Folder for files that the contenders share; its ``home`` is their FEDTL_HOME.
    repetitions : int
        How often each contender runs.
    peers : Path
        Interpreter with the peers installed.
    runs : list
        Every answer, in the order of time.
    """

    work: Path
    repetitions: int
    peers: Path
    say: Callable[[str], None] = print
    runs: list[Figures] = field(default_factory=list)

    def own(self, script: str, *arguments: object) -> Contender:
        """Return a contender that runs one of fedtl's scripts."""
        return lambda: self.answer([sys.executable, HERE / script, *arguments])

    def peer(self, script: str, *arguments: object) -> Contender:
        """Return a contender that runs one of the peers' scripts in their environment."""
        return lambda: self.answer([self.peers, HERE / script, *arguments])

    def answer(self, command: Sequence[object]) -> Figures:
        """Run a command and return the JSON of its last line, with its wall-clock seconds.

        Raises
        ------
        FedtlError
            It failed; the end of its log is quoted.
        """
        figures: Figures
        output, seconds = self._finished([str(word) for word in command])
        figures = json.loads(output.strip().splitlines()[-1])
        return {**figures, **seconds}

    def timed(self, command: Sequence[object]) -> Figures:
        """Run a command and return its wall-clock seconds only."""
        return self._finished([str(word) for word in command])[1]

    def _finished(self, words: list[str]) -> tuple[str, Figures]:
        environment = {**os.environ, "FEDTL_HOME": str(self.work / "home")}
        begun = time.perf_counter()
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=LIMIT_SECONDS,
        )
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise FedtlError(
                f"{' '.join(words[1:3])} failed: {done.stderr.strip()[-600:]}",
                next_step=f"Run it alone: {' '.join(words)}",
            )
        return done.stdout, {"wall_seconds": round(seconds, 3)}

    def alternate(self, contenders: Mapping[str, Contender]) -> dict[str, list[Figures]]:
        """Run all contenders in turn, again and again, every other time in reverse order."""
        found: dict[str, list[Figures]] = {name: [] for name in contenders}
        for turn in range(self.repetitions):
            order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
            for name in order:
                self.say(f"{name}, {turn + 1} of {self.repetitions}")
                figures = contenders[name]()
                found[name].append(figures)
                self.runs.append({"contender": name, "repetition": turn + 1, **figures})
        return found


def ratios(
    above: Sequence[Figures], below: Sequence[Figures], key: str, other: str = ""
) -> tuple[float, ...]:
    """Divide figures of the same repetition."""
    return tuple(a[key] / b[other or key] for a, b in zip(above, below, strict=True))


def middle(figures: Sequence[Figures], key: str) -> float:
    """Return the median of one figure."""
    return float(statistics.median(f[key] for f in figures))
