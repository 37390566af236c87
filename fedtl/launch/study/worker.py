"""A process that runs cells of a study: recipes in, rounds out, one line of JSON each.

``python -m fedtl.launch.study.worker`` is started by :mod:`fedtl.launch.study.pool`. It ends when
its standard input is closed, on SIGTERM, and soon after the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import IO, Any

SECONDS_BETWEEN_WORDS = 0.1


def main() -> None:
    """Answer one line after the other."""
    answers = _own_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for who started us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that half-written files are removed
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    bench = None
    for line in sys.stdin:
        if bench is None:
            from fedtl.launch.study.bench import Bench

            bench = Bench()
        _say(answers, _answer(bench, line, answers))


def _own_output() -> IO[str]:
    """Keep standard output for answers; what a strategy prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(bench: Any, line: str, answers: IO[str]) -> dict[str, Any]:
    from fedtl.errors import FedtlError
    from fedtl.recipe import Recipe

    try:
        rounds = bench.run(Recipe.model_validate_json(line), _Told(answers))
    except FedtlError as error:
        return {"failed": str(error), "trace": ""}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return {"rounds": [asdict(round_) for round_ in rounds]}


class _Told:
    """Passes the progress of the rounds on, now and then."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers, self._last = answers, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase == "rounds" and now - self._last >= SECONDS_BETWEEN_WORDS:
            self._last = now
            _say(self._answers, {"done": done})


def _say(answers: IO[str], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main()
