"""A training task on its way through JSON, and its learning rates."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import FedtlError, RecipeError
from fedtl.train.task import HEADS, OPTIMIZERS, SAMPLINGS, SCHEDULES, TrainTask

rates = st.floats(0, 0.99)
tasks = st.builds(
    TrainTask,
    rounds=st.integers(1, 100),
    steps=st.integers(1, 100),
    sampling=st.sampled_from(SAMPLINGS),
    batch_size=st.integers(1, 1000),
    optimizer=st.sampled_from(OPTIMIZERS),
    lr=st.floats(0, 1e6),
    momentum=rates,
    weight_decay=rates,
    schedule=st.sampled_from(SCHEDULES),
    averaging=rates,
    head=st.sampled_from(HEADS),
    hidden=st.integers(1, 512),
)


@given(tasks)
def test_a_task_survives_json(task: TrainTask) -> None:
    assert TrainTask.from_json(task.to_json()) == task


@given(tasks)
def test_learning_rates_follow_the_schedule_over_the_whole_run(task: TrainTask) -> None:
    """The schedule must not begin anew in each round."""
    rates = [task.lr_at(r, s) for r in range(1, task.rounds + 1) for s in range(task.steps)]
    assert rates[0] == task.lr
    assert all(0 <= b <= a * (1 + 1e-12) for a, b in pairwise(rates))
    n = len(rates)
    if task.schedule == "linear":
        assert rates[-1] == pytest.approx(task.lr / n)
    if task.schedule == "cosine" and n % 2 == 0:
        assert rates[n // 2] == pytest.approx(task.lr / 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 0) for name in ("rounds", "steps", "batch_size", "hidden")],
        *[(name, -0.1) for name in ("lr", "momentum", "weight_decay", "averaging")],
        *[(name, 1.0) for name in ("momentum", "averaging")],
        *[(name, float("nan")) for name in ("lr", "momentum", "weight_decay")],
        ("lr", float("inf")),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"train.{name} = ") as error:
        TrainTask(**({"rounds": 1} | {name: value}))  # type: ignore[arg-type]
    assert error.value.next_step


@pytest.mark.parametrize(
    ("name", "typo", "meant"),
    [
        ("sampling", "poison", "poisson"),
        ("optimizer", "adma", "adam"),
        ("schedule", "cosin", "cosine"),
        ("head", "lineal", "linear"),
    ],
)
def test_typos_get_the_nearest_name(name: str, typo: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=f"Did you mean '{meant}'"):
        TrainTask(**{"rounds": 1, name: typo})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"rounds": 1, "surprise": 2}',
        '{"rounds": "1"}',
        '{"rounds": null}',
        json.dumps(asdict(TrainTask(rounds=1)) | {"lr": "fast"}),
        json.dumps(asdict(TrainTask(rounds=1)) | {"lr": float("nan")}),
        json.dumps(asdict(TrainTask(rounds=1)) | {"steps": 1.5}),
    ],
)
def test_a_message_that_carries_no_task_is_refused(text: str) -> None:
    with pytest.raises(FedtlError) as error:
        TrainTask.from_json(text)
    assert error.value.code in ("task.unreadable", "recipe.invalid")
