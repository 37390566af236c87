"""What a law looks at: the subject, and one run of it that was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flwr.serverapp.strategy import Strategy

from fedtl.testing.bench import NAMES, differs, rounds_of, start_head
from fedtl.testing.recording import Step, configured, lived, recorded, training
from fedtl.testing.subject import Subject
from fedtl.testing.verdict import Broken, DoesNotApply, overheard, told
from fedtl.types import Arrays

TOLERANCE = 1e-4
"""How far two heads may be apart where only rounding differs, relative to the largest entry."""


@dataclass(frozen=True)
class Trial:
    """One strategy before its laws."""

    subject: Subject
    found: dict[str, str] = field(default_factory=dict)
    """What one law found out, for another."""

    def new(self) -> Strategy:
        """Return a strategy that has seen nothing yet."""
        return self.subject.make()

    @cached_property
    def rounds(self) -> int:
        """How many rounds are looked at."""
        return rounds_of(self.new())

    @cached_property
    def _recorded(self) -> tuple[Step, ...] | str:
        with overheard() as logged:
            try:
                return recorded(self.new())
            except (Exception, SystemExit) as error:  # a strategy may raise anything
                return " ".join([told(error), *logged[:1]])

    @property
    def steps(self) -> tuple[Step, ...]:
        """The rounds of a run on the reference Grid.

        Raises
        ------
        DoesNotApply
            It did not come to its end, which the law ``runs`` tells.
        """
        if isinstance(self._recorded, str) or not self._recorded:
            raise DoesNotApply("it does not run")
        return self._recorded

    def recorded(self) -> tuple[Step, ...]:
        """Return the rounds of a run on the reference Grid.

        Raises
        ------
        Broken
            It did not come to its end.
        """
        if isinstance(self._recorded, str):
            raise Broken(
                f"{self.rounds} rounds at {len(NAMES)} sites",
                expected="a head after every round",
                seen=self._recorded,
            )
        return self._recorded

    @property
    def stages(self) -> tuple[int, ...]:
        """Places of the first round of each kind of message, and of the last round."""
        kinds: dict[str, int] = {}
        for at, step in enumerate(self.steps):
            kinds.setdefault(step.kind, at)
        return tuple(sorted({*kinds.values(), len(self.steps) - 1}))

    @property
    def training(self) -> int:
        """Place of the first round of gradients.

        Raises
        ------
        DoesNotApply
            It asks for sums only.
        """
        if (at := training(self.steps)) is None:
            raise DoesNotApply("it asks for sums only, never for a trained head")
        return at

    def lived(self, at: int) -> Strategy:
        """Return a strategy that has lived through the rounds before one."""
        return lived(self.new(), self.steps, at)

    def ready(self, at: int, names: Sequence[str] = NAMES) -> Strategy:
        """Return a strategy that has lived through the rounds before one, and has asked for it."""
        strategy = self.lived(at)
        configured(strategy, self.steps[at], names)
        return strategy

    def start(self) -> Arrays:
        """Return the head that runs start from."""
        return start_head(self.new())


def expect_same(
    seen: Arrays, expected: Arrays, *, given: str, what: str, tolerance: float = 0.0
) -> None:
    """Break the law if two heads differ.

    Parameters
    ----------
    given, what : str
        The input, and what the expected head is.

    Raises
    ------
    Broken
        They do.
    """
    if difference := differs(seen, expected, tolerance=tolerance):
        raise Broken(given, expected=what, seen=difference)
