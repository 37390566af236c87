"""A plan says what is promised, survives JSON, and refuses what contradicts itself."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_plan, toy_release

from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import ComposedEvent, GaussianEvent
from fedtl.privacy.plan import PrivacyPlan, Release, plan_for


def made(**changes: object) -> PrivacyPlan:
    noise = changes.pop("noise_multiplier", None)
    values: dict[str, object] = {"mechanism": "gradients", "clip_norm": 0.5, "count": 20}
    release = Release(**(values | changes))  # type: ignore[arg-type]
    return plan_for(release, epsilon=4.0, delta=1e-5, noise_multiplier=noise)  # type: ignore[arg-type]


def noise_of(plan: PrivacyPlan) -> float:
    return plan.release("gradients").noise_multiplier


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
    release = Release(
        mechanism="gradients",
        clip_norm=clip,
        noise_multiplier=noise,
        count=releases,
        sampling_rate=rate,
        public_size=size,
    )
    metrics = Release(mechanism="metrics", noise_multiplier=noise)
    plan = PrivacyPlan(epsilon, delta, (release, metrics))
    assert PrivacyPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("rate", [1.0, 0.25], ids=["full", "poisson"])
def test_all_releases_together_cost_at_most_the_budget(rate: float) -> None:
    """Noise calibrated per round would spend a multiple of the budget over the run."""
    plan = made(sampling_rate=rate)
    assert 0.99 * 4.0 < plan.epsilon_after() <= 4.0
    spent = [plan.epsilon_after({"gradients": n}) for n in (0, 1, 5, 10, 20)]
    assert spent[0] == 0.0
    assert spent == sorted(spent)
    assert len(set(spent)) == len(spent)


def test_a_longer_run_takes_more_noise() -> None:
    assert noise_of(made(count=40)) > 1.3 * noise_of(made(count=20))


def test_a_plan_says_what_it_promises() -> None:
    text = made(sampling_rate=0.25).describe()
    for part in ("(4, 1e-05)-DP", "per example", "add or remove", "clipped to 0.5", "20 releases"):
        assert part in text
    assert "Poisson 0.25" in text
    assert "full batches" in made().describe()


def test_a_given_noise_that_costs_too_much_is_refused() -> None:
    enough = noise_of(made())
    assert noise_of(made(noise_multiplier=enough)) == enough
    with pytest.raises(PrivacyError, match=r"costs epsilon .* more than epsilon = 4") as error:
        made(noise_multiplier=0.9 * enough)
    assert "calibrated" in error.value.next_step


@pytest.mark.parametrize(
    "changes",
    [
        *[{name: value} for name in ("clip_norm", "noise_multiplier", "public_size")
          for value in (0.0, -1.0, math.nan, math.inf)],
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"sampling_rate": math.nan},
        {"count": 0},
        {"count": 2.5},
        {"count": True},
        {"mechanism": "gradient"},
        {"unit": "patient"},
        {"honest_sites": -1},
        {"honest_sites": 3, "sampling_rate": 0.5},
        {"honest_sites": 3, "mechanism": "metrics"},
        {"mechanism": "statistics", "sampling_rate": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_contradictory_releases_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrivacyError) as error:
        replace(toy_release(), **changes)
    assert error.value.next_step


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"accountant": "gdp"},
        {"neighbouring": "replace one"},
        {"releases": ()},
        {"releases": (toy_release(), toy_release(3))},
        {"releases": (toy_release(), toy_release(mechanism="statistics", unit="group"))},
        {"releases": (toy_release(), toy_release(mechanism="statistics", honest_sites=4))},
    ],
    ids=str,
)
def test_contradictory_plans_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrivacyError) as error:
        replace(toy_plan(), **changes)
    assert error.value.next_step


BOTH = Release(mechanism="statistics"), Release(mechanism="gradients", count=40)


def test_several_releases_are_one_composed_event() -> None:
    """Each calibrated for the whole budget by itself would cost more together than was promised."""
    plan = plan_for(*BOTH, epsilon=3, delta=1e-5, shares={"statistics": 0.2, "gradients": 0.8})
    statistics, gradients = (plan.release(name).noise_multiplier for name in plan.costs())
    event = ComposedEvent((GaussianEvent(statistics, 1), GaussianEvent(gradients, 40)))
    assert epsilon_of(event, 1e-5) == pytest.approx(3, rel=1e-6)
    assert plan.epsilon_after() <= 3
    mu = 1 / statistics**2, 40 / gradients**2
    assert mu[0] / sum(mu) == pytest.approx(0.2, rel=1e-6)
    alone = plan.costs()
    assert max(alone.values()) < 3 < sum(alone.values())
    assert f"alone {alone['statistics']:.3g}" in plan.describe()


def test_what_was_not_released_is_not_counted() -> None:
    plan = plan_for(*BOTH, epsilon=3, delta=1e-5)
    late = plan.epsilon_after({"gradients": 39})
    assert 0 < late < plan.epsilon_after({"gradients": 39, "statistics": 1}) < 3


def test_held_out_records_have_a_budget_of_their_own() -> None:
    """They are other records than those that are trained on: parallel composition."""
    metrics = Release(mechanism="metrics", count=10)
    with_, without = (plan_for(*parts, epsilon=2, delta=1e-5) for parts in ((*BOTH, metrics), BOTH))
    assert with_.release("gradients") == without.release("gradients")
    assert with_.epsilon_after() == without.epsilon_after()
    assert with_.epsilon_after(held_out=True) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(PrivacyError, match="share of statistics"):
        plan_for(*BOTH, epsilon=1, delta=1e-5, shares={"statistics": share})


def test_one_noise_for_two_mechanisms_is_refused() -> None:
    with pytest.raises(PrivacyError, match="does not say how"):
        plan_for(*BOTH, epsilon=1, delta=1e-5, noise_multiplier=9.0)


def test_what_a_plan_does_not_cover_is_refused() -> None:
    with pytest.raises(PrivacyError, match="cover a release of statistics") as error:
        toy_plan().release("statistics")
    assert error.value.code == "plan.mismatch"


def test_a_typo_gets_the_nearest_mechanism() -> None:
    with pytest.raises(PrivacyError, match="Did you mean 'gradients'"):
        toy_plan(mechanism="gradient")


def forged(**changes: object) -> str:
    plain = asdict(toy_plan())
    return json.dumps(plain | {"releases": [plain["releases"][0] | changes]})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", json.dumps(asdict(toy_plan()) | {"rounds": 3}),
     forged(noise_multiplier="none"),
     forged(noise_multiplier=0),
     forged(noise_multiplier=math.nan),
     forged(sampling_rate=None),
     forged(count=math.inf),
     forged(surprise=1),
     json.dumps(asdict(toy_plan()) | {"releases": []}),
     json.dumps(asdict(toy_plan()) | {"releases": 3}),
     json.dumps(asdict(toy_plan()) | {"accountant": "gdp"})],
)  # fmt: skip
def test_a_message_that_carries_no_plan_is_refused(text: str) -> None:
    """A site must never train without noise because a plan could not be read."""
    with pytest.raises(FedtlError):
        PrivacyPlan.from_json(text)
