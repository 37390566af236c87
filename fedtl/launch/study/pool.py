"""Cells of a study on many cores: a few processes, each fed by a thread.

Plain processes that talk in lines of JSON: nothing is pickled, the caller's ``__main__`` is not
imported again, and a process that dies costs the cell it ran, not the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fedtl.launch.study.bench import Bench, data_key
from fedtl.recipe.study import Cell
from fedtl.report.study_result import CellRound

SECONDS_TO_END = 2.0
"""How long a process may take to put half-written files away before it is killed."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A cell has done so many rounds."""

    cell: Cell
    done: int


@dataclass(frozen=True, slots=True)
class Done:
    """A cell is finished."""

    cell: Cell
    rounds: tuple[CellRound, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A cell failed; ``trace`` is empty where the user can mend it."""

    cell: Cell
    problem: str
    trace: str = ""


Event = Reached | Done | Failed


class Schedule:
    """Hands out cells so that a worker stays with one federation as long as it can.

    Examples
    --------
    >>> Schedule([]).take("") is None
    True
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._left: dict[str, list[Cell]] = {}
        for cell in cells:
            self._left.setdefault(data_key(cell.recipe), []).append(cell)
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def take(self, held: str) -> Cell | None:
        """Return the next cell for a worker that holds the federation of a key; None at the end."""
        with self._lock:
            left = {key: cells for key, cells in self._left.items() if cells}
            if not left:
                return None
            fresh = [key for key in left if key not in self._begun]
            longest = max(left, key=lambda key: len(left[key]))
            key = held if held in left else (fresh[0] if fresh else longest)
            self._begun.add(key)
            return left[key].pop(0)


def run_cells(cells: Sequence[Cell], *, jobs: int, logs: Path) -> Generator[Event, None, None]:
    """Run cells and yield what happens to them.

    Parameters
    ----------
    jobs : int
        Processes; 1 runs the cells in this one.
    logs : Path
        Folder for what the processes print.

    Closing the iterator, or an exception at its ``yield``, ends the processes.
    """
    if jobs == 1:
        yield from _here(Schedule(cells))
        return
    pool = _Pool(Schedule(cells), logs)
    threads = [
        threading.Thread(target=pool.serve, args=(at,), name=f"fedtl-study-{at}")
        for at in range(jobs)
    ]
    try:
        for thread in threads:
            thread.start()
        working = jobs
        while working:
            event = pool.events.get()
            if event is None:
                working -= 1
            else:
                yield event
    finally:
        pool.end()
        for thread in threads:
            thread.join()


def _here(schedule: Schedule) -> Iterator[Event]:
    """Run cells in this process."""
    import traceback

    from fedtl.errors import FedtlError

    bench, held = Bench(), ""
    while (cell := schedule.take(held)) is not None:
        held = data_key(cell.recipe)
        try:
            event: Event = Done(cell, bench.run(cell.recipe))
        except FedtlError as error:
            event = Failed(cell, str(error))
        except Exception as error:
            event = Failed(cell, f"{type(error).__name__}: {error}", traceback.format_exc())
        yield event


class _Pool:
    """What the threads of a pool share."""

    def __init__(self, schedule: Schedule, logs: Path) -> None:
        self.events: SimpleQueue[Event | None] = SimpleQueue()
        self._schedule, self._logs = schedule, logs
        self._ending = False
        self._workers: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def serve(self, at: int) -> None:
        """Feed one worker until no cell is left; one that died is replaced."""
        log, held, worker = self._logs / f"worker-{at + 1}.log", "", None
        try:
            while (cell := self._schedule.take(held)) is not None:
                held = data_key(cell.recipe)
                worker = worker or self._started(log)
                if worker is None:
                    return
                event = self._run(worker, cell)
                if event is None:
                    held, code = "", self._stopped(worker)
                    worker = None
                    if self._ending:
                        return
                    event = Failed(cell, f"its process ended with code {code}; see '{log}'.")
                self.events.put(event)
        finally:
            if worker is not None:
                self._stopped(worker)
            self.events.put(None)

    def _started(self, log: Path) -> subprocess.Popen[str] | None:
        """Start a worker; None where the pool is about to end."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, log.open("ab") as file:
            if self._ending:
                return None
            worker = subprocess.Popen(
                [sys.executable, "-m", "fedtl.launch.study.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                env={**os.environ, **dict.fromkeys(_THREADS, "1")},
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone
            )
            self._workers.add(worker)
        return worker

    def _run(self, worker: subprocess.Popen[str], cell: Cell) -> Event | None:
        """Let a worker run a cell; None if it ends meanwhile."""
        if worker.stdin is None or worker.stdout is None:
            return None
        with suppress(OSError, ValueError):
            worker.stdin.write(cell.recipe.model_dump_json() + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                told: dict[str, Any] = json.loads(line)
                if "done" in told:
                    self.events.put(Reached(cell, told["done"]))
                elif "rounds" in told:
                    return Done(cell, tuple(CellRound(**round_) for round_ in told["rounds"]))
                else:
                    return Failed(cell, told["failed"], told["trace"])
        return None

    def _stopped(self, worker: subprocess.Popen[str]) -> int:
        """Let a worker end, and return its code."""
        with self._lock:
            self._workers.discard(worker)
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            return worker.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def end(self) -> None:
        """Stop all workers; what they run is lost."""
        with self._lock:
            self._ending = True
            for worker in self._workers:
                worker.terminate()


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
