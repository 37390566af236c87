"""What a check says: one verdict per law, with the input, what was expected and what was seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Literal

from fedtl.errors import FedtlError, StrategyError

Outcome = Literal["kept", "broken", "does not apply", "told"]


class Broken(Exception):
    """A law is broken.

    Parameters
    ----------
    given : str
        The input.
    expected, seen : str
        What the law says about it, and what happened.
    """

    def __init__(self, given: str, *, expected: str, seen: str) -> None:
        super().__init__(f"given {given}: expected {expected}, seen {seen}")
        self.given, self.expected, self.seen = given, expected, seen


class DoesNotApply(Exception):
    """A law has nothing to say about this strategy; the text says why."""


class BrokenLaws(StrategyError):
    """At least one law is broken; the text lists every one of them."""

    default_code = "strategy.laws"

    def __init__(self, report: Report) -> None:
        broken = report.broken
        lines = [f"{report.name} breaks {len(broken)} of {len(report.verdicts)} laws."]
        lines += [verdict.describe() for verdict in broken]
        super().__init__(
            "\n".join(lines),
            next_step="\nMend it, or say in the class what it does not promise: "
            f"not_promised = {{{broken[0].law!r}: 'why'}}.",
        )
        self.report = report


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one law.

    Attributes
    ----------
    law, says : str
        Its name, and what it says in a sentence.
    outcome : {"kept", "broken", "does not apply", "told"}
        A finding is told; it cannot be broken.
    given, expected, seen : str
        Of a broken law; otherwise ``seen`` is the finding, or why the law does not apply.
    """

    law: str
    says: str
    outcome: Outcome
    given: str = ""
    expected: str = ""
    seen: str = ""

    def describe(self) -> str:
        """Return the verdict in a few lines."""
        if self.outcome != "broken":
            return f"* {self.law}: {self.outcome}{f' ({self.seen})' if self.seen else ''}"
        return (
            f"* {self.law}: {self.says}\n  given: {self.given}\n  expected: {self.expected}\n"
            f"  seen: {self.seen}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts on one strategy, in the order of the laws."""

    name: str
    verdicts: tuple[Verdict, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The laws that it breaks."""
        return tuple(v for v in self.verdicts if v.outcome == "broken")

    def __getitem__(self, law: str) -> Verdict:
        """Return the verdict on a law.

        Raises
        ------
        KeyError
            It was not asked for.
        """
        for verdict in self.verdicts:
            if verdict.law == law:
                return verdict
        raise KeyError(law)

    def check(self) -> None:
        """Raise one error for all broken laws.

        Raises
        ------
        BrokenLaws
            There is at least one.
        """
        if self.broken:
            raise BrokenLaws(self)


@contextmanager
def given(what: str, *, expected: str) -> Iterator[None]:
    """Say what the input is, so that an exception of the strategy becomes a broken law."""
    try:
        yield
    except (Broken, DoesNotApply):
        raise
    except (Exception, SystemExit) as error:  # a strategy may raise anything
        raise Broken(what, expected=expected, seen=told(error)) from error


class _Heard(logging.Handler):
    """Keeps what is logged, one line each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(record.getMessage() + (f": {told(error)}" if error else ""))


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect what sites log of their failures, of which the server learns the codes only."""
    logger, heard = logging.getLogger("fedtl.site"), _Heard()
    before = logger.level, logger.propagate
    logger.addHandler(heard)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield heard.lines
    finally:
        logger.removeHandler(heard)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def told(error: BaseException) -> str:
    """Return an exception in one line, with the place where it was raised."""
    if isinstance(error, FedtlError):
        return " ".join(error.problem.split())
    name = type(error).__name__
    text = " ".join(f"{name}: {error}".split()).removesuffix(":")
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    file, line = places[-1] if places else ("?", 0)
    return f"{text} ({Path(file).name}, line {line})"
