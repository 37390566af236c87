"""The check itself: every law on one strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedtl.errors import StrategyError, nearest
from fedtl.testing.bench import undisturbed
from fedtl.testing.laws import LAWS, ON_REQUEST, Law
from fedtl.testing.subject import Given, subject_of
from fedtl.testing.trial import Trial
from fedtl.testing.verdict import Broken, DoesNotApply, Report, Verdict


def examine(
    strategy: Given,
    *,
    options: Mapping[str, Any] | None = None,
    around: Mapping[str, Mapping[str, Any]] | None = None,
    laws: Iterable[str] = (),
    not_promised: Mapping[str, str] | None = None,
) -> Report:
    """Return a verdict per law on a strategy.

    Parameters
    ----------
    strategy : str, type, Strategy or callable
        A known name or ``path/to/file.py:Class``, a class, an instance, or a function without
        arguments that makes one.
    options : mapping, optional
        Keyword arguments of a class or a name.
    around : mapping of str to mapping, optional
        Wrappers of a name (``[strategy.around]`` in a recipe) and their options, the outermost
        first.
    laws : iterable of str
        Which laws (:data:`fedtl.testing.laws.LAWS`); default: all but ``"ray"``, which takes a
        minute. A strategy that does not run is
        told so in any case.
    not_promised : mapping of str to str, optional
        Law to the reason why the strategy does not keep it; a class may have such an attribute.

    Raises
    ------
    StrategyError
        An unknown law, or a strategy that cannot be found or made.

    Examples
    --------
    >>> report = examine("fedavg", laws=["order", "averages"])
    >>> [(v.law, v.outcome) for v in report.verdicts]
    [('order', 'kept'), ('averages', 'told')]
    """
    subject = subject_of(strategy, options=options, around=around, not_promised=not_promised)
    chosen = [_law(name) for name in laws] or list(LAWS.values())
    for name in subject.not_promised:
        _law(name)
    trial = Trial(subject)
    found = tuple(verdict(law, trial) for law in chosen)
    first = verdict(LAWS["runs"], trial)  # without a run the other laws have nothing to look at
    if first.outcome == "broken" and "runs" not in [law.name for law in chosen]:
        found = (first, *found)
    return Report(subject.name, found)


def check_strategy(
    strategy: Given,
    *,
    options: Mapping[str, Any] | None = None,
    around: Mapping[str, Mapping[str, Any]] | None = None,
    laws: Iterable[str] = (),
    not_promised: Mapping[str, str] | None = None,
) -> Report:
    """Raise one error that lists every broken law of a strategy; return the verdicts otherwise.

    For a test: ``def test_mine(): check_strategy(Mine)``. Parameters are those of :func:`examine`.

    Raises
    ------
    BrokenLaws
        At least one law is broken. The error says which, given what, what was expected and what was
        seen.
    StrategyError
        As :func:`examine`.
    """
    report = examine(strategy, options=options, around=around, laws=laws, not_promised=not_promised)
    report.check()
    return report


def verdict(law: Law, trial: Trial) -> Verdict:
    """Judge one law."""
    if reason := trial.subject.not_promised.get(law.name):
        return Verdict(law.name, law.says, "does not apply", seen=f"not promised: {reason}")
    try:
        with undisturbed():
            found = law.judge(trial)
    except DoesNotApply as reason:
        return Verdict(law.name, law.says, "does not apply", seen=str(reason))
    except Broken as broken:
        return Verdict(
            law.name,
            law.says,
            "told" if law.finding else "broken",
            given=broken.given,
            expected=broken.expected,
            seen=broken.seen,
        )
    return Verdict(law.name, law.says, "told" if law.finding else "kept", seen=found or "")


@dataclass(frozen=True, slots=True)
class Check:
    """One law on one strategy, to be called by a test of its own."""

    law: Law
    trial: Trial

    def __call__(self) -> None:
        """Judge.

        Raises
        ------
        BrokenLaws
            The law is broken.
        """
        Report(self.trial.subject.name, (verdict(self.law, self.trial),)).check()

    def __str__(self) -> str:
        return f"{self.trial.subject.name}-{self.law.name.replace(' ', '_')}"


def checks(*strategies: Given, not_promised: Mapping[str, str] | None = None) -> list[Check]:
    """Return every law on every strategy, one check each, for ``pytest.mark.parametrize``.

    Findings are left out: they cannot fail.

    Examples
    --------
    In a test file::

        @pytest.mark.parametrize("check", checks(Mine), ids=str)
        def test_law(check):
            check()

    >>> [str(check) for check in checks("krum")][:2]
    ['krum-runs', 'krum-tensors']
    """
    made: list[Check] = []
    for strategy in strategies:
        trial = Trial(subject_of(strategy, not_promised=not_promised))
        made += [Check(law, trial) for law in LAWS.values() if not law.finding]
    return made


def _law(name: str) -> Law:
    known = {**LAWS, **ON_REQUEST}
    if name not in known:
        raise StrategyError(f"There is no law '{name}'.", next_step=nearest(name, known))
    return known[name]
