"""Events: what a ledger stores must come back exactly, and nothing else may pass for an event."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import PrivacyError
from fedtl.privacy.events import (
    MAX_JSON_CHARACTERS,
    ComposedEvent,
    GaussianEvent,
    PoissonGaussianEvent,
    Releases,
    from_json,
    releases_of,
    to_json,
)

noises = st.floats(0, 1e9)
counts = st.integers(0, 10**9)
rates = st.floats(0, 1, exclude_min=True)
leaves = st.builds(GaussianEvent, noises, counts) | st.builds(
    PoissonGaussianEvent, noises, rates, counts
)
events = st.recursive(
    leaves, lambda inner: st.builds(ComposedEvent, st.lists(inner, max_size=4).map(tuple))
)


@given(events)
def test_json_brings_back_the_same_event(event):
    assert from_json(to_json(event)) == event


@given(events, events)
def test_json_differs_when_events_differ(one, other):
    assert (to_json(one) == to_json(other)) == (one == other)


def test_json_is_canonical():
    assert to_json(GaussianEvent(2, 3)) == to_json(GaussianEvent(2.0, 3))
    text = to_json(ComposedEvent((PoissonGaussianEvent(2.0, 0.5, 3),)))
    assert text == (
        '{"events":[{"count":3,"kind":"poisson-gaussian","noise_multiplier":2.0,'
        '"sampling_rate":0.5}],"kind":"composed"}'
    )


def deep(levels):
    return '{"kind":"composed","events":[' * levels + "]}" * levels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"kind": "gaussian"',
        '{"kind": "gaussian"}',
        '{"kind": 3, "noise_multiplier": 1, "count": 1}',
        '{"kind": "laplace", "noise_multiplier": 1, "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": NaN, "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": -Infinity, "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": "1", "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": true, "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": 1, "count": -1}',
        '{"kind": "gaussian", "noise_multiplier": 1, "count": 1.0}',
        '{"kind": "gaussian", "noise_multiplier": 1, "count": 1' + "0" * 400 + "}",
        '{"kind": "gaussian", "noise_multiplier": 1' + "0" * 5000 + ', "count": 1}',
        '{"kind": "gaussian", "noise_multiplier": 1, "count": 1, "discount": 0.5}',
        '{"kind": "poisson-gaussian", "noise_multiplier": 1, "sampling_rate": 0, "count": 1}',
        '{"kind": "poisson-gaussian", "noise_multiplier": 1, "sampling_rate": 1.5, "count": 1}',
        '{"kind": "composed", "events": {}}',
        '{"kind": "composed", "events": [1]}',
        deep(40),
        deep(100_000),
        " " * (MAX_JSON_CHARACTERS + 1),
    ],
    ids=lambda text: text[:60],
)
def test_a_hostile_text_is_refused_and_costs_nothing(text):
    with pytest.raises(PrivacyError) as refusal:
        from_json(text)
    assert refusal.value.next_step
    assert len(str(refusal.value)) < 6000


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf, 10**400, "1", None, True])
def test_noise_out_of_range_is_named(noise):
    with pytest.raises(PrivacyError, match="noise_multiplier"):
        GaussianEvent(noise, 1)


@pytest.mark.parametrize("count", [-1, 1.5, True, 10**10])
def test_count_out_of_range_is_named(count):
    with pytest.raises(PrivacyError, match="count"):
        PoissonGaussianEvent(1.0, 0.5, count)


@pytest.mark.parametrize("rate", [0, -0.1, 1.0001, math.nan, None])
def test_sampling_rate_out_of_range_is_named(rate):
    with pytest.raises(PrivacyError, match="sampling_rate"):
        PoissonGaussianEvent(1.0, rate, 1)


def test_events_must_be_a_tuple_so_that_nobody_appends_to_them():
    with pytest.raises(PrivacyError, match="list, not a tuple"):
        ComposedEvent([GaussianEvent(1.0)])


@given(events)
def test_flattening_loses_no_release(event):
    def total(e):
        return sum(map(total, e.events)) if isinstance(e, ComposedEvent) else e.count

    assert sum(r.count for r in releases_of(event)) == total(event)


def test_flattening_merges_and_sorts():
    a, b = GaussianEvent(3.0, 2), PoissonGaussianEvent(1.0, 0.1, 5)
    merged = (Releases(0.1, 1.0, 10), Releases(1.0, 3.0, 2))
    assert releases_of(ComposedEvent((a, b, b))) == merged
    assert releases_of(ComposedEvent((b, ComposedEvent((b, a))))) == merged


def test_a_stranger_among_the_events_is_refused():
    class FreeEvent:
        count = 1

    for event in (FreeEvent(), None, 1, ComposedEvent((GaussianEvent(1.0), FreeEvent()))):
        with pytest.raises(PrivacyError, match="unknown"):
            releases_of(event)
        with pytest.raises(PrivacyError, match="unknown"):
            to_json(event)


def test_written_json_is_json():
    assert json.loads(to_json(ComposedEvent(()))) == {"kind": "composed", "events": []}
