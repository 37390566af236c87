"""Every planted fault is found by the law that it breaks, and the originals keep all laws."""

from __future__ import annotations

import pytest
from faults import FAULTS, AsksNobody, ForgetsItsVelocity, Momentum, SumsUp
from flwr.serverapp.strategy import Strategy
from own_faults import OWN_FAULTS

from fedtl.strategies.fed3r import Fed3R
from fedtl.testing import BrokenLaws, check_strategy, examine


@pytest.mark.parametrize("original", [Momentum, Fed3R])
def test_the_originals_keep_every_law(original: type[Strategy]) -> None:
    check_strategy(original)


ALL = {**FAULTS, **OWN_FAULTS}


@pytest.mark.parametrize("faulty", OWN_FAULTS, ids=lambda v: v.__name__)
def test_what_they_are_copies_of_keeps_the_law(faulty: type[Strategy]) -> None:
    original = faulty.__mro__[1]
    assert examine(original, laws=[OWN_FAULTS[faulty]]).verdicts[0].outcome == "kept"


@pytest.mark.parametrize(("faulty", "law"), ALL.items(), ids=lambda v: getattr(v, "__name__", v))
def test_a_planted_fault_is_found_by_its_law(faulty: type[Strategy], law: str) -> None:
    verdict = examine(faulty, laws=[law])[law]
    assert verdict.outcome == "broken", verdict.seen
    assert verdict.given
    assert verdict.expected
    assert verdict.seen


def test_there_are_as_many_faults_as_were_promised() -> None:
    assert len(ALL) >= 30
    assert len(set(ALL.values())) >= 12


@pytest.mark.parametrize("faulty", [SumsUp, ForgetsItsVelocity, AsksNobody])
def test_the_error_of_a_whole_check_names_the_law(faulty: type[Strategy]) -> None:
    with pytest.raises(BrokenLaws) as error:
        check_strategy(faulty)
    assert f"* {FAULTS[faulty]}: " in str(error.value)
    assert error.value.problem.startswith(f"{faulty.__name__} breaks ")
