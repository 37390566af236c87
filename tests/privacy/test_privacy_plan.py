"""A plan says what is promised, survives JSON, and refuses what contradicts itself."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_plan

from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.plan import PrivacyPlan, plan_for


def made(**changes: object) -> PrivacyPlan:
    values: dict[str, object] = {"epsilon": 4.0, "delta": 1e-5, "clip_norm": 0.5, "releases": 20}
    return plan_for(**(values | changes))  # type: ignore[arg-type]


positive = st.floats(1e-3, 1e3)


@settings(max_examples=50)
@given(
    epsilon=positive,
    delta=st.floats(1e-9, 1e-3),
    clip=positive,
    noise=positive,
    releases=st.integers(1, 10**6),
    rate=st.floats(0.001, 1.0),
    size=positive,
)
def test_a_plan_survives_json(
    epsilon: float, delta: float, clip: float, noise: float, releases: int, rate: float, size: float
) -> None:
    plan = PrivacyPlan(epsilon, delta, clip, noise, releases, rate, public_size=size)
    assert PrivacyPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("rate", [1.0, 0.25], ids=["full", "poisson"])
def test_all_releases_together_cost_at_most_the_budget(rate: float) -> None:
    """Noise calibrated per round would spend a multiple of the budget over the run."""
    plan = made(sampling_rate=rate)
    assert 0.99 * 4.0 < plan.epsilon_after(20) <= 4.0
    spent = [plan.epsilon_after(n) for n in (0, 1, 5, 10, 20)]
    assert spent[0] == 0.0
    assert spent == sorted(spent)
    assert len(set(spent)) == len(spent)


def test_a_longer_run_takes_more_noise() -> None:
    assert made(releases=40).noise_multiplier > 1.3 * made(releases=20).noise_multiplier


def test_a_plan_says_what_it_promises() -> None:
    text = made(sampling_rate=0.25).describe()
    for part in ("(4, 1e-05)-DP", "per example", "add or remove", "clipped to 0.5", "20 releases"):
        assert part in text
    assert "Poisson 0.25" in text
    assert "full batches" in made().describe()


def test_a_given_noise_that_costs_too_much_is_refused() -> None:
    enough = made().noise_multiplier
    assert made(noise_multiplier=enough).noise_multiplier == enough
    with pytest.raises(PrivacyError, match=r"costs epsilon .* more than epsilon = 4") as error:
        made(noise_multiplier=0.9 * enough)
    assert "calibrated" in error.value.next_step


@pytest.mark.parametrize(
    "changes",
    [
        *[{name: value} for name in ("clip_norm", "noise_multiplier", "public_size")
          for value in (0.0, -1.0, math.nan, math.inf)],
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"sampling_rate": math.nan},
        {"releases": 0},
        {"releases": 2.5},
        {"mechanism": "gradient"},
        {"unit": "patient"},
        {"model": "central"},
    ],
    ids=str,
)  # fmt: skip
def test_contradictory_plans_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrivacyError) as error:
        replace(toy_plan(), **changes)
    assert error.value.next_step


def test_a_typo_gets_the_nearest_mechanism() -> None:
    with pytest.raises(PrivacyError, match="Did you mean 'gradients'"):
        toy_plan(mechanism="gradient")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", json.dumps(asdict(toy_plan()) | {"rounds": 3}),
     json.dumps(asdict(toy_plan()) | {"noise_multiplier": "none"}),
     json.dumps(asdict(toy_plan()) | {"noise_multiplier": 0}),
     json.dumps(asdict(toy_plan()) | {"noise_multiplier": math.nan}),
     json.dumps(asdict(toy_plan()) | {"sampling_rate": None}),
     json.dumps(asdict(toy_plan()) | {"releases": math.inf}),
     json.dumps(asdict(toy_plan()) | {"accountant": "gdp"})],
)  # fmt: skip
def test_a_message_that_carries_no_plan_is_refused(text: str) -> None:
    """A site must never train without noise because a plan could not be read."""
    with pytest.raises(FedtlError):
        PrivacyPlan.from_json(text)
